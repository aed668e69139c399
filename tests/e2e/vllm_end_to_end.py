"""A real vLLM under load, a real Prometheus, and what Foreserve makes of them (`make e2e-vllm`).

    PYTHONPATH=tests/ingest python tests/e2e/vllm_end_to_end.py --vllm-python .../bin/python --out DIR

About five minutes. Prints a line per step and figure; exit 0 only if every check holds. Everything
runs on loopback with free ports, bounded in time, and is ended whatever happens.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import servers
import vllm_load
import vllm_truth
from make_tiny_model import write_model

from autoscaler.edge.artifacts import load_models
from autoscaler.edge.policy_files import load_policies
from autoscaler.edge.prometheus import PrometheusReader, ReaderSettings
from autoscaler.edge.prometheus_api import Access, PrometheusApi
from autoscaler.edge.wire import observation_to_dict
from models.contract import Labels

MODEL = "tiny-llama"
SERVICE, VARIANT = "lab/tiny", "cpu"
STEP_SECONDS = 15
SCRAPE_SECONDS = 3  # divides the step: an interval then has whole scrapes, each counted once
READY_SECONDS = 240.0
DRAIN_SECONDS = 90.0
COMMAND_SECONDS = 300.0

SCRAPING = """
global: {{scrape_interval: {scrape}s, scrape_timeout: {scrape}s}}
scrape_configs:
- job_name: engines
  static_configs:
  - targets: ["127.0.0.1:{port}"]
    labels: {{namespace: lab, service: tiny, variant: cpu, pod: tiny-0}}
"""
POLICIES = """
apiVersion: foreserve.dev/v1alpha1
kind: AcceleratorPool
metadata: {name: cores}
spec:
  classes:
    - {name: core, usdPerHour: 0.05, quota: {count: 8}}
---
apiVersion: foreserve.dev/v1alpha1
kind: ScalingPolicy
metadata: {name: tiny, namespace: lab}
spec:
  model: tiny-llama
  slo:
    objectives:
      - {metric: ttft, targetSeconds: 0.5}
      - {metric: tpot, targetSeconds: 0.05}
  variants:
    - name: cpu
      acceleratorClass: core
      targetRef: {apiVersion: apps/v1, kind: Deployment, name: tiny}
      maxReplicas: 8
"""


class CheckError(AssertionError):
    """Something that should hold does not."""


def say(text: str) -> None:
    sys.stdout.write(f"[{time.strftime('%H:%M:%S')}] {text}\n")
    sys.stdout.flush()


def check(holds: bool, what: str) -> None:
    """Say what was checked; raise CheckError if it does not hold."""
    say(f"{'ok   ' if holds else 'WRONG'} {what}")
    if not holds:
        raise CheckError(what)


def now() -> float:
    return time.time_ns() / 1e9


@contextmanager
def vllm(python: Path, out: Path) -> Iterator[int]:
    """Yield the port of a vLLM that answers /health; one core, 16 sequences, 8,192 KV tokens."""
    write_model(out / "model")
    port = servers.free_port()
    command = [
        *(str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(out / "model")),
        *("--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port)),
        *("--load-format", "dummy", "--dtype", "bfloat16", "--enforce-eager"),
        *("--max-model-len", "1024", "--max-num-seqs", "16", "--max-num-batched-tokens", "512"),
        *("--block-size", "32", "--num-gpu-blocks-override", "256"),
    ]
    settings = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
        "VLLM_CPU_OMP_THREADS_BIND": "0",  # one core: the machine has other work
    }
    log = out / "vllm.log"
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**os.environ, **settings},
            start_new_session=True,  # its engine is a process of its own: ended with it
        )
        try:
            wait_for_health(port, process, log)
            yield port
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)


def wait_for_health(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise CheckError(f"vLLM did not start; the end of {log}:\n{log.read_text()[-1500:]}")


def foreserve(*arguments: object, stdin: str = "") -> str:
    """Run the command; its stdout. CheckError with what it said if the status is not 0."""
    command = [sys.executable, "-c", "from autoscaler.cli import main; main()"]
    ran = subprocess.run(
        [*command, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    words = " ".join(map(str, arguments[:2]))
    if ran.returncode:
        sys.stdout.write(ran.stdout + ran.stderr)
    check(ran.returncode == 0, f"foreserve {words}: exit {ran.returncode}")
    return ran.stdout


def drive(port: int, rates: Sequence[float], seconds: float) -> tuple[float, vllm_load.Log]:
    """Send the load from the next whole step on; return its start and the log, still filling."""
    phase = seconds / len(rates)
    calls = vllm_load.schedule(rates, phase, seed=7)
    start = (now() // STEP_SECONDS + 1) * STEP_SECONDS
    say(f"{len(calls)} requests in {seconds:g} s, at {', '.join(f'{r:g}' for r in rates)} a second")
    log = vllm_load.Log()
    vllm_load.send_all(port, MODEL, calls, start, log)
    time.sleep(max(0.0, start + seconds - now()))
    return start, log


def observe(url: str, policies: Path) -> str:
    """Return one JSON line for `decide`: what the online reader sees now."""
    settings = ReaderSettings(interval_seconds=STEP_SECONDS, scrape_seconds=SCRAPE_SECONDS)
    with (
        PrometheusApi(Access(url)) as api,
        PrometheusReader(api, Labels(), settings) as reader,
    ):
        reading = reader.read(load_policies([policies]), now())
    check(
        not reading.failed and not reading.silent, f"online reader: failed {dict(reading.failed)}"
    )
    seen = reading.observation.services[SERVICE]
    say(
        f"observed {seen.arrival_rate_rps:.2f} requests/s, running {seen.variants[VARIANT].running}"
    )
    return json.dumps(observation_to_dict(reading.observation)) + "\n"


def learn_and_decide(out: Path, policies: Path, observation: str) -> None:
    """Train on what was ingested; decide on the observation."""
    foreserve("train", "--telemetry", out / "telemetry", "--models", out / "models")
    latency = load_models(out / "models").latency
    score = latency.scores[f"{SERVICE}/{VARIANT}"]
    check(latency.knows(SERVICE, VARIANT), f"latency model knows {SERVICE}: {json.dumps(score)}")
    history = out / "telemetry" / "load.parquet"
    line = foreserve(
        *("decide", "--models", out / "models", "--policies", policies, "--history", history),
        stdin=observation,
    )
    decision = json.loads(line)["services"][SERVICE]
    replicas = decision["variants"][VARIANT]["replicas"]
    words = {k: v for k, v in decision.items() if not isinstance(v, dict | list)}
    check(isinstance(replicas, int) and 1 <= replicas <= 8, f"decide: {replicas} of {words}")


def run(python: Path, out: Path, rates: Sequence[float], seconds: float) -> None:
    policies = out / "policies.yaml"
    policies.write_text(POLICIES, encoding="utf-8")
    with ExitStack() as running:
        say("starting vLLM")
        port = running.enter_context(vllm(python, out))
        scraping = SCRAPING.format(scrape=SCRAPE_SECONDS, port=port)
        url = running.enter_context(servers.prometheus(out / "prometheus", None, scraping))
        say(f"vLLM and Prometheus are up: {url}")
        warm = vllm_load.Log()
        vllm_load.send_all(port, MODEL, vllm_load.schedule([2.0], 6.0, seed=1), now(), warm)
        check(vllm_load.wait_for_answers(DRAIN_SECONDS) and not warm.failed, "warmed up")
        time.sleep(STEP_SECONDS + 2 * SCRAPE_SECONDS)  # none of it in the first interval's window
        start, log = drive(port, rates, seconds)
        observation = observe(url, policies)
        check(vllm_load.wait_for_answers(DRAIN_SECONDS), "every client has its answer")
        check(not log.failed, f"{len(log.failed)} of {len(log.seen)} failed {log.failed[:1]}")
        vllm_truth.write(out / "requests.csv", log.seen)
        time.sleep(STEP_SECONDS)  # scraped to the end, and the last interval whole
        found = foreserve("lint", "--url", url, "--policies", policies)
        sys.stdout.write(found)
        foreserve(
            *("ingest", "prometheus", "--url", url, "--out", out / "telemetry"),
            *("--from", f"{start:.0f}", "--to", f"{start + seconds:.0f}"),
            *("--step", f"{STEP_SECONDS}s", "--policies", policies),
        )
        bounds = vllm_truth.bounds(port)
    for holds, what in vllm_truth.compare(out / "telemetry", log.seen, start, seconds, bounds):
        check(holds, what)
    learn_and_decide(out, policies, observation)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vllm-python", type=Path, required=True, help="python that has vllm")
    parser.add_argument("--out", type=Path, default=Path("build/e2e-vllm"), help="emptied first")
    parser.add_argument("--rates", default="3,6,9,6,3", help="requests per second of the phases")
    parser.add_argument("--seconds", type=int, default=225, help="length of the load")
    given = parser.parse_args()
    rates = [float(r) for r in given.rates.split(",")]
    if given.seconds % (STEP_SECONDS * len(rates)):
        parser.error(
            f"--seconds {given.seconds}; allowed: multiples of {STEP_SECONDS * len(rates)}"
        )
    for program in ("prometheus", "promtool"):
        if shutil.which(program) is None:
            parser.error(f"{program} is not on PATH (Debian: apt install prometheus)")
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` ends the servers
    try:
        run(given.vllm_python.absolute(), out, rates, given.seconds)
    except CheckError as error:
        say(f"FAILED: {error}\nleft in {out}")
        return 1
    say(f"all checks hold; the run lies in {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
