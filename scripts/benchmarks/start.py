"""Start-up time of the command line in CPU seconds: `python scripts/benchmarks/start.py`.

Each command runs in its own process. The table shows medians, and ratios to `import torch`.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile

COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import hf_mae": ["-c", "import hf_mae"],
    "hf-mae --help": ["-m", "hf_mae", "--help"],
    "hf-mae --version": ["-m", "hf_mae", "--version"],
    "hf-mae finetune --help": ["-m", "hf_mae", "finetune", "--help"],
    "hf-mae audit --help": ["-m", "hf_mae", "audit", "--help"],
    "a wrong flag": ["-m", "hf_mae", "finetune", "--lr", "1e-3"],
    "an unknown recipe": ["-m", "hf_mae", "finetune", "--recipe", "no-such-recipe"],
    "a missing folder": ["-m", "hf_mae", "evaluate", "--model_name_or_path", "/absent", "--data_dir", "/absent"],
    "import torch": ["-c", "import torch"],
    "import evaluate": ["-c", "import evaluate"],
}


def measure_cpu_seconds(argv: list[str], cwd: str) -> float:
    """CPU seconds of one process and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=cwd)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(rounds: int) -> None:
    print(f"{os.cpu_count()} cores; Python {sys.version.split()[0]}; median of {rounds}, interleaved\n")
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with tempfile.TemporaryDirectory() as cwd:
        for number in range(rounds + 1):
            for name, argv in COMMANDS.items():
                used = measure_cpu_seconds(argv, cwd)
                if number:  # the first round fills the page cache
                    seconds[name].append(used)
    print("| | CPU seconds | ratio to `import torch` |\n|---|---|---|")
    torch = statistics.median(seconds["import torch"])
    for name, values in seconds.items():
        middle = statistics.median(values)
        print(f"| {name} | {middle:.2f} | {middle / torch:.2f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    main(parser.parse_args().rounds)
