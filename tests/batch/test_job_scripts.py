"""Job scripts, line by line: what is asked of the batch system, and what its workers get."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import dask
import pytest

from iscale.batch import clusters, jobs
from iscale.batch.clusters import job_cluster, job_script
from iscale.batch.settings import PoolName, Site
from iscale.engine.dask_workers import SETTINGS
from iscale.errors import InputError

CPU = {"queue": "long", "cores": 8, "workers": 4, "memory": "16GB", "walltime": "04:00:00", "jobs": 3}
GPU = {"queue": "gpu", "cores": 4, "gpus": 1, "memory": "32GB", "walltime": "04:00:00", "jobs": 2}

BSUB = {
    "-J": r"[\w-]{1,4094}",  # bsub -J job_name
    "-q": r"\w+",  # bsub -q "queue_name ..."
    "-P": r'"?\w+"?',  # bsub -P project_name
    "-n": r"\d+",  # bsub -n min_tasks[,max_tasks]
    "-R": r'"(span\[(hosts=1|ptile=\d+)\]|rusage\[mem=\d+([KMGT]B)?\])"',  # bsub -R "res_req" [-R "res_req" ...]
    "-M": r"\d+",  # bsub -M mem_limit, in the unit of LSF_UNIT_FOR_LIMITS
    "-W": r"\d+:[0-5]\d",  # bsub -W [hour:]minute
    "-o": r'("/[^"]+/)?iscale-((cpu|gpu)-)?%J\.(log"|lsf)',  # bsub -o output_file, %J is the job's number
    "-rn": "",  # bsub -rn
    "-gpu": r'"num=\d+(:j_exclusive=(yes|no))?"',  # bsub -gpu "[num=num_gpus] ... [:j_exclusive=yes | no] ..."
    "-wa": r"URG",  # bsub -wa signal
    "-wt": r"\d+",  # bsub -wt [hour:]minute
    "-Q": r'"\d+( \d+)*"',  # bsub -Q "exit_code ..."
}
"""Options of bsub that scripts have, and the forms of their values: the synopses of IBM's reference of LSF 10.1."""

RUN_BSUB = Path(__file__).parent.parent.parent / "deploy" / "lsf" / "run.bsub"


def site(scheduler: str = "slurm", **changes: Any) -> Site:
    return Site.model_validate({"scheduler": scheduler, "cpu": CPU, "gpu": GPU} | changes)


def directives(script: str) -> list[str]:
    return [line.split(" ", 1)[1] for line in script.splitlines() if line.startswith(("#SBATCH ", "#BSUB "))]


def command(script: str) -> list[str]:
    return shlex.split(script.strip().splitlines()[-1])


def test_what_is_asked_of_slurm() -> None:
    asked = site(cpu=CPU | {"account": "lab", "directives": ["--constraint=big"]})
    assert directives(job_script(asked, "cpu", Path("/home/me/my logs"))) == [
        "-J iscale-cpu",
        "-p long",
        "-A lab",
        "-n 1",
        "--cpus-per-task=8",
        "--mem=15259M",
        "-t 04:00:00",
        '-o "/home/me/my logs/iscale-cpu-%j.log"',
        "--no-requeue",
        "--constraint=big",
    ]
    assert directives(job_script(asked, "gpu", Path("/logs"))) == [
        "-J iscale-gpu",
        "-p gpu",
        "-n 1",
        "--cpus-per-task=4",
        "--mem=30518M",
        "-t 04:00:00",
        '-o "/logs/iscale-gpu-%j.log"',
        "--no-requeue",
        "--gres=gpu:1",
    ]


@pytest.mark.parametrize(
    ("changes", "directives_of_cpu", "cpu", "gpu"),
    [
        ({}, [], ["--mem=15259M"], ["--mem=30518M"]),
        ({"reserve_memory": "core"}, [], ["--mem-per-cpu=1908M"], ["--mem-per-cpu=7630M"]),
        ({"reserve_memory": "no"}, [], [], []),
        ({}, ["--mem-per-cpu=4G"], ["--mem-per-cpu=4G"], ["--mem=30518M"]),
        ({}, ["--mem 20G"], ["--mem 20G"], ["--mem=30518M"]),
        ({"reserve_memory": "core"}, ["--mem=0", "--constraint=big"], ["--mem=0"], ["--mem-per-cpu=7630M"]),
    ],
)
def test_memory_is_asked_of_slurm_once_as_the_file_says(
    changes: dict[str, Any], directives_of_cpu: list[str], cpu: list[str], gpu: list[str]
) -> None:
    asked = site(cpu=CPU | {"directives": directives_of_cpu}, **changes)
    pools: dict[PoolName, list[str]] = {"cpu": cpu, "gpu": gpu}
    for pool, expected in pools.items():
        lines = directives(job_script(asked, pool, Path("/logs")))
        assert [line for line in lines if line.startswith("--mem")] == expected
        assert len(lines) == len(set(lines))
        assert "-t 04:00:00" in lines


def test_a_directive_that_gives_less_memory_than_workers_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"--mem-per-cpu=1G gives a job 8\.\d+ GB, cpu\.memory = 16GB"):
        site(cpu=CPU | {"directives": ["--mem-per-cpu=1G"]})
    site("lsf", cpu=CPU | {"directives": ["-app big"]})


def test_what_is_asked_of_lsf() -> None:
    asked = site("lsf", cpu=CPU | {"account": "lab", "directives": ["-app big"]})
    assert directives(job_script(asked, "cpu", Path("/home/me/my logs"))) == [
        "-J iscale-cpu",
        "-q long",
        '-P "lab"',
        "-n 8",
        '-R "span[hosts=1]"',
        "-M 16000",
        "-W 04:00",
        '-R "rusage[mem=16000]"',
        '-o "/home/me/my logs/iscale-cpu-%J.log"',
        "-rn",
        "-app big",
    ]


@pytest.mark.parametrize("pool", ["cpu", "gpu"])
@pytest.mark.parametrize("cores", [1, 8])
def test_every_line_for_lsf_is_an_option_that_it_has(pool: PoolName, cores: int) -> None:
    kinds = {"cpu": CPU | {"cores": cores, "workers": 1, "account": "lab"}, "gpu": GPU}
    script = job_script(site("lsf", **kinds), pool, Path("/logs"))
    assert script.startswith("#!/usr/bin/env bash\n")
    found = [line.partition(" ") for line in directives(script)]
    for option, _, value in found:
        assert re.fullmatch(BSUB[option], value), (option, value)
    assert ("-gpu" in {option for option, _, _ in found}) == (pool == "gpu")


def test_every_line_of_the_file_to_submit_is_an_option_that_lsf_has() -> None:
    lines = re.findall(r"^##?BSUB (.+)$", RUN_BSUB.read_text(), re.MULTILINE)
    asked = [line.partition(" ") for line in lines]
    assert {"-n", "-R", "-W", "-wa", "-wt", "-gpu", "-Q"} <= {option for option, _, _ in asked}
    for option, _, value in asked:
        assert re.fullmatch(BSUB[option], value), (option, value)


@pytest.mark.parametrize(
    ("unit", "reserve", "limit", "reserved"),
    [
        ("KB", "job", "16000000", "16000000"),
        ("MB", "job", "16000", "16000"),
        ("GB", "job", "16", "16"),
        ("MB", "core", "16000", "2000"),
        ("GB", "core", "16", "2"),
        ("MB", "no", "16000", None),
    ],
)
def test_memory_in_the_unit_of_the_site(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unit: str, reserve: str, limit: str, reserved: str | None
) -> None:
    (tmp_path / "lsf.conf").write_text("LSF_UNIT_FOR_LIMITS=TB\n")
    monkeypatch.setenv("LSF_ENVDIR", str(tmp_path))  # dask-jobqueue would look there; the file is what counts
    lines = directives(job_script(site("lsf", memory_unit=unit, reserve_memory=reserve), "cpu", tmp_path))
    assert f"-M {limit}" in lines
    assert [line for line in lines if "rusage" in line] == ([f'-R "rusage[mem={reserved}]"'] if reserved else [])


@pytest.mark.parametrize(
    ("scheduler", "form"), [("slurm", "--gpus-per-node=a100:1"), ("lsf", '-gpu "num=1:mode=shared"')]
)
def test_a_site_may_want_another_form_for_cards(scheduler: str, form: str) -> None:
    lines = directives(job_script(site(scheduler, gpu=GPU | {"gpu_directive": form}), "gpu", Path("/logs")))
    assert [line for line in lines if "gpu" in line.replace("iscale-gpu", "").replace("-p gpu", "")][-1:] == [form]
    assert not {"--gres=gpu:1", '-gpu "num=1"'} & set(lines)


@pytest.mark.parametrize("scheduler", ["slurm", "lsf"])
def test_what_the_workers_are_told(scheduler: str) -> None:
    asked = site(scheduler, interface="ib0", local_directory="$TMPDIR", python="/opt/my python/bin/python")
    words = command(job_script(asked, "cpu", Path("/logs"), death_timeout_s=45))
    assert words[:4] == ["/opt/my python/bin/python", "-m", "distributed.cli.dask_worker", "tcp://SCHEDULER:PORT"]
    given = dict(zip(words, [*words[1:], ""], strict=True))
    assert given["--nthreads"] == "1"
    assert given["--nworkers"] == "4"
    assert given["--memory-limit"] == str(asked.cpu.worker_bytes)
    assert given["--death-timeout"] == "45"
    assert given["--interface"] == "ib0"
    assert given["--local-directory"] == "$TMPDIR"
    assert (given["--lifetime"], given["--lifetime-stagger"]) == ("13500s", "300s")
    assert {"--nanny", "--no-dashboard"} <= set(words)


def test_one_worker_per_card() -> None:
    words = command(job_script(site(), "gpu", Path("/logs")))
    assert "--nworkers" not in words
    assert words[words.index("--nthreads") + 1] == "1"
    assert words[0] == sys.executable


def test_what_the_workers_find_in_their_environment(tmp_path: Path) -> None:
    lines = ["export GREETING='good day'", "export OMP_NUM_THREADS=99"]
    asked = site(environment=lines, cpu=CPU | {"environment": ["export POOL=$GREETING"]})
    script = job_script(asked, "cpu", tmp_path)
    prologue = "\n".join(script.strip().splitlines()[:-1])
    show = (
        "import os, json, dask, distributed;"
        f"print(json.dumps([dict(os.environ), {{k: dask.config.get(k) for k in {list(SETTINGS)!r}}}]))"
    )
    told = subprocess.check_output(["bash", "-c", f"{prologue}\n{sys.executable} -c {shlex.quote(show)}"], text=True)
    environ, settings = json.loads(told)
    assert environ["POOL"] == "good day"
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ZARR_THREADING__MAX_WORKERS"):
        assert environ[name] == "2", "8 cores for 4 workers, whatever a module sets"
    assert environ["OMP_WAIT_POLICY"] == "PASSIVE"
    for key, value in SETTINGS.items():
        assert not key.startswith("distributed.worker.") or settings[key] == value, key


@pytest.mark.parametrize("scheduler", ["slurm", "lsf"])
def test_what_stands_in_dasks_own_files_changes_nothing(scheduler: str, tmp_path: Path) -> None:
    before = job_script(site(scheduler), "cpu", tmp_path)
    words = ("queue", "project", "account", "interface", "local-directory", "shebang", "python", "worker-command")
    lists = ("worker-extra-args", "job-extra-directives", "job-script-prologue", "extra", "job-extra", "env-extra")
    noise: dict[str, Any] = dict.fromkeys(words, "WRONG") | {key: ["--WRONG"] for key in lists}
    noise |= {"job-directives-skip": ["-"], "job-cpu": 77, "ncpus": 77, "mem": 1, "job-mem": "1G", "lsf-units": "tb"}
    with dask.config.set({f"jobqueue.{scheduler}": noise, "jobqueue.iscale": noise}):
        assert job_script(site(scheduler), "cpu", tmp_path) == before


@pytest.mark.parametrize("scheduler", ["slurm", "lsf"])
def test_a_script_needs_no_batch_system_and_writes_nothing(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    job_script(site(scheduler), "cpu", tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="not on the PATH"):
        job_cluster(site(scheduler), "cpu", tmp_path / "logs")
    assert list(tmp_path.iterdir()) == []


def test_where_dask_jobqueue_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("iscale.batch.jobs")
    monkeypatch.delitem(sys.modules, "iscale.batch.jobs")
    for name in [name for name in sys.modules if name.partition(".")[0] == "dask_jobqueue"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    with pytest.raises(InputError, match=r'pip install "iscale\[cluster\]"'):
        clusters.job_script(site(), "cpu", Path("/logs"))


def test_logs_whose_folder_cannot_be_named() -> None:
    with pytest.raises(InputError, match="log_directory"):
        job_script(site(), "cpu", Path('/home/a "b"'))


@pytest.fixture
def batch_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins for sbatch and bsub that do what the lines of a file say, one after the other."""
    for name in ("sbatch", "bsub"):
        program = tmp_path / name
        program.write_text(
            f"#!/bin/bash\nread -r line < {tmp_path}/answers; sed -i 1d {tmp_path}/answers\n"
            f"[[ {name} == bsub ]] && cat > {tmp_path}/stdin\n"
            'if [[ $line == Submitted* || $line == Job* ]]; then echo "$line"; else echo "$line" >&2; exit 1; fi\n'
        )
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(jobs, "RETRY_AFTER_S", (0.01, 0.01))
    return tmp_path / "answers"


def submit(scheduler: str, refusals: list[str]) -> str:
    """Submit one job; its id."""
    job_script(site(scheduler), "cpu", Path("/logs"))
    keywords = clusters._keywords(site(scheduler), "cpu", Path("/logs"), 60)

    async def start() -> str:
        job = (jobs.SlurmJob if scheduler == "slurm" else jobs.LsfJob)(
            "tcp://x:1", name="w", refusals=refusals, **keywords
        )
        await job
        return str(job.job_id)

    return asyncio.run(start())


def test_a_batch_system_that_is_busy_is_asked_again(batch_system: Path) -> None:
    refusals: list[str] = []
    busy = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation\n"
    batch_system.write_text(busy * 2 + "Submitted batch job 17\n")
    assert submit("slurm", refusals) == "17"
    batch_system.write_text(
        "Failed in an LSF library call: LIM is down; try later\nJob <9> is submitted to queue <q>.\n"
    )
    assert submit("lsf", refusals) == "9"
    assert "#BSUB -n 8" in (batch_system.parent / "stdin").read_text()
    assert refusals == []


@pytest.mark.parametrize(
    ("scheduler", "answers", "said"),
    [
        ("slurm", ["sbatch: error: invalid account"], "sbatch: error: invalid account"),
        ("slurm", ["Unable to contact slurm controller"] * 3, "Unable to contact slurm controller"),
        ("lsf", ["night: No such queue. Job not submitted."], "night: No such queue. Job not submitted."),
    ],
)
def test_what_a_batch_system_says_when_it_refuses(
    batch_system: Path, scheduler: str, answers: list[str], said: str
) -> None:
    refusals: list[str] = []
    batch_system.write_text("\n".join([*answers, "left"]) + "\n")
    submit(scheduler, refusals)
    assert refusals == [said]
    assert batch_system.read_text() == "left\n", "asked as often as there were answers"


def test_importing_dask_jobqueue_leaves_ctrl_c_as_it_was() -> None:
    code = (
        "import signal; from pathlib import Path; from iscale.batch.clusters import job_script;"
        "from iscale.batch.settings import Pool, Site;"
        "pool = Pool(cores=1, memory='2GB', walltime='01:00:00', jobs=1);"
        "job_script(Site(scheduler='slurm', cpu=pool), 'cpu', Path('/logs'));"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_interface_that_this_machine_lacks_is_one_clear_error(batch_system: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"interface 'eth99' is none of this machine's: .*lo"):
        clusters.job_cluster(site("slurm", interface="eth99"), "cpu", tmp_path)
