"""Submits a fine-tuning to SLURM with submitit. After preemption or a time-out, the job is requeued and resumes.

    python scripts/submit_finetune.py --nodes 4 --ngpus 8 --timeout 480 --partition gpu --job_dir runs/imagenet \
        --recipe imagenet-vit-base --model_name_or_path mae_pretrain_vit_base --data_dir IMAGENET

Other flags are passed to `hf-mae finetune`; its output folder is the job folder. Each node runs one `accelerate
launch`, independent of how the cluster starts its tasks. `--cluster local` runs on this machine.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import submitit

from hf_mae.cli.terminal import print_message, print_text
from hf_mae.files.redaction import hide_credentials
from hf_mae.settings.accelerate_configs import list_launch_configs
from hf_mae.training.preemption import STOPPED_FILE


class Finetuning:
    """Function that a node runs; submitit calls `checkpoint` before it requeues the job."""

    def __init__(
        self, flags: list[str], job_dir: str, processes: int, config: str, launch: list[str], port: int | None
    ):
        self.flags, self.job_dir, self.processes = flags, job_dir, processes
        self.config, self.launch, self.port = config, launch, port
        self._running: subprocess.Popen | None = None

    def __call__(self) -> None:
        environment = submitit.JobEnvironment()
        hosts = environment.hostnames
        port = self.port or 20000 + int("".join(c for c in str(environment.job_id) if c.isdigit())) % 20000
        command = [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", self.config),
            *("--num_machines", str(environment.num_nodes), "--machine_rank", str(environment.node)),
            *("--num_processes", str(environment.num_nodes * self.processes)),
            *("--main_process_ip", hosts[0] if len(hosts) > 1 else "127.0.0.1", "--main_process_port", str(port)),
            *(*self.launch, "-m", "hf_mae", "finetune", *self.flags),
            *("--output_dir", self.job_dir, "--resume_from_checkpoint", "last"),
        ]
        print_text(" ".join(command), flush=True)
        # SLURM sends submitit's signal (USR2) to all processes; only submitit handles it.
        self._running = subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGUSR2, signal.SIG_IGN))
        # Not `wait()`: submitit calls `checkpoint` from a signal handler, which would wait for the lock of `wait()`.
        while (status := self._running.poll()) is None:
            time.sleep(0.5)
        if status and not (Path(self.job_dir) / STOPPED_FILE).exists():
            raise RuntimeError(f"The run ended with exit status {status}. See the log above.")

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        """Lets the run save a checkpoint, then requeues the job, which resumes from it."""
        if self._running is not None:
            os.kill(self._running.pid, signal.SIGTERM)
            while os.waitid(os.P_PID, self._running.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                time.sleep(0.2)
        return submitit.helpers.DelayedSubmission(
            Finetuning(self.flags, self.job_dir, self.processes, self.config, self.launch, self.port)
        )


def parse_arguments(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser("submit_finetune.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--nodes", type=int, default=1, help="number of nodes (default: %(default)s)")
    parser.add_argument("--ngpus", type=int, default=8, help="GPUs per node (default: %(default)s)")
    parser.add_argument(
        "--timeout", type=int, default=4320, help="time limit in minutes, after which the job is requeued"
    )
    parser.add_argument("--partition", help="SLURM partition")
    parser.add_argument("--constraint", help="SLURM constraint (node features)")
    parser.add_argument("--comment", help="comment for the scheduler")
    parser.add_argument("--job_dir", "--job-dir", required=True, help="output folder of the run and of the job's logs")
    parser.add_argument("--cpus_per_task", "--cpus-per-task", type=int, default=10, help="CPU cores per node")
    parser.add_argument("--config", default="multi_node", help="file of accelerate_configs/ (default: %(default)s)")
    parser.add_argument("--cluster", help="slurm or local (default: SLURM if it is installed)")
    parser.add_argument("--max_requeues", "--max-requeues", type=int, default=50, help="maximum number of requeues")
    parser.add_argument(
        "--signal_delay", "--signal-delay", type=int, default=120, help="seconds between the signal and the time limit"
    )
    parser.add_argument("--launch", default="", help="additional flags of accelerate launch, in quotes")
    parser.add_argument("--port", type=int, help="port of the first node (default: derived from the job id)")
    return parser.parse_known_args(argv)


def main(argv: list[str]) -> int:
    options, flags = parse_arguments(argv)
    if any(flag.split("=")[0].replace("-", "_") == "__output_dir" for flag in flags):
        print_message("submit_finetune.py: --job_dir is the output folder. Remove --output_dir.")
        return 1
    flags = hide_credentials(flags)  # SLURM passes the passwords to the job in an environment variable
    if any(flag.split("=")[0].replace("-", "_") == "__hub_token" for flag in flags):
        print_message("submit_finetune.py: the flags of a job are saved. Remove --hub_token, and set HF_TOKEN.")
        return 1
    names = list_launch_configs()
    if options.config not in names:
        print_message(f"submit_finetune.py: --config must be one of {', '.join(names)}, not {options.config}.")
        return 1
    job_dir = Path(options.job_dir).resolve()
    logs = job_dir / "submitit"
    executor = submitit.AutoExecutor(logs, options.cluster, slurm_max_num_timeout=options.max_requeues)
    slurm = {"partition": options.partition, "constraint": options.constraint, "comment": options.comment}
    gpus = {"gpus_per_node": options.ngpus} if options.ngpus and executor.cluster == "slurm" else {}
    executor.update_parameters(
        name="hf_mae",
        nodes=options.nodes,
        tasks_per_node=1,
        cpus_per_task=options.cpus_per_task,
        timeout_min=options.timeout,
        slurm_signal_delay_s=options.signal_delay,
        **gpus,
        **{f"slurm_{name}": value for name, value in slurm.items() if value},
    )
    processes = max(options.ngpus, 1)
    run = Finetuning(flags, str(job_dir), processes, str(names[options.config]), options.launch.split(), options.port)
    job = executor.submit(run)
    print_text(f"Submitted job {job.job_id}: {options.nodes} nodes x {processes} processes; logs in {logs}")
    if executor.cluster == "local":
        job.wait()
        if job.exception() is not None:
            print_message(str(job.exception()))
            return 1
    return 0


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    sys.exit(main(sys.argv[1:]))
