"""`foreserve demo`: the bundled day as a scenario, and the files that a user may change and run again."""

from importlib import resources
from pathlib import Path

from autoscaler.whatif.compare import compare
from autoscaler.whatif.output import write_json
from autoscaler.whatif.pool import Train
from autoscaler.whatif.report import write_report
from autoscaler.whatif.results import Comparison
from autoscaler.whatif.scenario import load_scenario
from models.progress import Progress

OUT = Path("out/demo")
FILES = {"demo-scenario.yaml": "scenario.yaml", "demo-policies.yaml": "policies.yaml"}
ATTRIBUTION = (
    "Load: Azure LLM inference trace 2024, code service (Microsoft, CC-BY-4.0; J. Stojkovic et al., "
    "DynamoLLM, HPCA 2025), read from the publisher's plots in 10-minute steps and scaled; output "
    "lengths are the mean of the 2023 trace. Single requests are drawn.",
    "Engine: step times of Llama-2-70B on 4 × H100 as measured by Splitwise (P. Patel et al., ISCA "
    "2024, MIT), software of 2023. Start-up times: published measurements, each with its source in "
    "bundle/startup_facts.csv; most are of smaller models, so quicker than a 70B model would start, "
    "which is to the rivals' advantage. Price: AWS p5.48xlarge, us-east-1, on demand, 2026-07-20, per GPU.",
    "Origins, licences and changes: autoscaler/whatif/bundle/DATA_NOTICE.md. Plots: BokehJS, BSD-3-"
    "Clause.",
)


def run_demo(
    out: Path, *, train: Train, progress: Progress, workers: int | None = None
) -> Comparison:
    """Write scenario, policies, telemetry, models, report.html and report.json below `out`."""
    out.mkdir(parents=True, exist_ok=True)
    bundle = resources.files("autoscaler.whatif") / "bundle"
    for source, name in FILES.items():
        (out / name).write_text((bundle / source).read_text(encoding="utf-8"), encoding="utf-8")
    scenario = load_scenario(out / "scenario.yaml")
    comparison = compare(scenario, work=out, train=train, progress=progress, workers=workers)
    write_json(comparison, out / "report.json")
    write_report(comparison, out / "report.html", attribution=ATTRIBUTION)
    return comparison
