"""setup.cfg and the tested versions of the libraries agree."""

import configparser
import re

from packaging.requirements import Requirement
from support.paths import ROOT


def test_version_limits_of_setup_cfg_are_the_tested_versions():
    """The oldest versions in scripts/test_versions.sh are the minimums; libraries with private names have a maximum."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    required = {
        (requirement := Requirement(line)).name.lower(): requirement.specifier
        for line in settings["options"]["install_requires"].split()
    }
    script = (ROOT / "scripts" / "test_versions.sh").read_text()
    pinned = dict(re.findall(r"([\w-]+)==([\d.]+)", re.search(r"oldest=\((.*?)\)", script, flags=re.DOTALL).group(1)))
    minimums = {name: str(item.version) for name, spec in required.items() for item in spec if item.operator == ">="}
    for name, version in pinned.items():
        assert minimums.get(name, version).rstrip(".0") == version.rstrip(".0"), name
    assert {"torch", "transformers", "accelerate", "datasets", "timm"} <= set(pinned)
    for name in ("transformers", "accelerate", "datasets", "timm"):
        assert any(item.operator == "<" for item in required[name]), f"{name} needs a maximum version"
