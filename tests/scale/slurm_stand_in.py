"""Stand-ins for sbatch, squeue, scancel and scontrol that really run the job script, on this computer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
said = dict(re.findall(r"^#SBATCH --([a-z-]+)=(.*)$", script, re.M))
assert said["partition"] and said["time"] and said["mem-per-cpu"]
job = str(os.getpid())
first, last = re.match(r"(\\d+)-(\\d+)", said["array"]).groups()
open("{here}/" + job + ".sh", "w").write(script)
exports = dict(p.split("=", 1) for a in sys.argv if a.startswith("--export=") for p in a[9:].split(",") if "=" in p)
run = (
    "for n in $(seq " + first + " " + last + "); do SLURM_JOB_ID=" + job + " SLURM_ARRAY_TASK_ID=$n "
    "SLURM_NODELIST=here bash {here}/" + job + ".sh > "
    + os.path.dirname(said["output"]) + "/" + job + "_$n.out 2>&1; done; "
    "rm {here}/" + job + ".sh"
)
subprocess.Popen(["bash", "-c", run], env=os.environ | exports, start_new_session=True, stdout=subprocess.DEVNULL)
print("Submitted batch job", job)
"""
_SQUEUE = """#!{python}
import os, sys
job = sys.argv[sys.argv.index("-j") + 1]
print("RUNNING" if os.path.exists("{here}/" + job + ".sh") else "", end="")
"""
_SCANCEL = """#!{python}
import os, signal, sys
open("{here}/cancelled", "a").write(sys.argv[1] + " ")
"""
_SCONTROL = """#!{python}
import sys
print(sys.argv[-1])
"""


def install(here: Path) -> str:
    """Write them into a folder; what to put in front of PATH."""
    here.mkdir()
    for name, text in {"sbatch": _SBATCH, "squeue": _SQUEUE, "scancel": _SCANCEL, "scontrol": _SCONTROL}.items():
        (here / name).write_text(text.format(python=sys.executable, here=here), "utf-8")
        (here / name).chmod(0o755)
    return f"{here}{os.pathsep}{os.environ['PATH']}"
