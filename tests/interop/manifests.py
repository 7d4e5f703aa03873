"""What kustomize makes of `deploy/kubernetes`."""

import itertools
import os
import subprocess
from pathlib import Path

import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy/kubernetes"
COMPONENTS = sorted(folder.parent.name for folder in KUBERNETES.glob("components/*/kustomization.yaml"))
OVERLAYS = sorted(folder.parent.name for folder in KUBERNETES.glob("*/kustomization.yaml"))
# The base with each choice of components, as the operator's page promises it.
CHOICES = {
    "+".join(("base", *chosen)): chosen
    for count in range(1, len(COMPONENTS) + 1)
    for chosen in itertools.combinations(COMPONENTS, count)
}


def build(folder):
    """The objects of a kustomization."""
    built = subprocess.run(["kustomize", "build", folder], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return list(yaml.safe_load_all(built.stdout))


def build_with_components(folder, components):
    """The objects of the base with these components; `folder` is an empty one for the kustomization that says so."""
    kustomization = {
        "resources": [os.path.relpath(KUBERNETES / "base", folder)],
        "components": [os.path.relpath(KUBERNETES / "components" / component, folder) for component in components],
    }
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    return build(folder)
