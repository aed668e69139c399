"""Every notebook runs from the bundled data, and is kept without outputs and without definitions."""

import ast
import gc
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SECONDS_PER_CELL = 600  # a busy machine
SHORTER = {"04_what_if": ("judgedHours: 4", "judgedHours: 1")}  # every cell runs all the same
named = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def test_they_are_all_there() -> None:
    assert [p.stem[:2] for p in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@named
def test_outputs_are_stripped(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        assert "execution_count" not in cell or cell.execution_count is None
        assert not cell.get("outputs")
        assert not cell.metadata, f"{cell.metadata} of {cell.source[:60]}"
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@named
def test_nothing_reused_is_defined_in_it(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    defined = [
        node.name
        for node in ast.walk(ast.parse(code))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
    ]
    assert not defined


@pytest.mark.slow
@named
@pytest.mark.filterwarnings("default")  # of Jupyter; the cells run in a process of their own
def test_it_runs_and_tells_with_plots(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what it writes goes with the test
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.chdir(tmp_path)
    notebook = nbformat.read(path, as_version=4)
    if path.stem in SHORTER:
        whole, part = SHORTER[path.stem]
        assert sum(cell.source.count(whole) for cell in notebook.cells) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(whole, part)
    sockets = str(tmp_path / "k")  # the same for both sides, wherever they run
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=sockets)
    where = {"metadata": {"path": str(path.parent)}}
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=SECONDS_PER_CELL,
        startup_timeout=SECONDS_PER_CELL,
        resources=where,
    )
    client.execute()
    del client, kernel
    gc.collect()  # Jupyter leaves sockets to the collector, whose warnings are no errors here
    outputs = [out for cell in notebook.cells for out in cell.get("outputs", [])]
    assert sum("image/png" in out.get("data", {}) for out in outputs) >= 1
    said = [out.text for out in outputs if out.output_type == "stream" and out.name == "stderr"]
    assert not [text for text in said if "IPKernelApp" not in text], said
