"""`python -m harness`: one run in this process, or with -m a sweep through the launcher that `cluster` names."""

from __future__ import annotations

import os
import sys

from harness.importing import importing

with importing():
    import hydra
    from hydra.core.hydra_config import HydraConfig
    from hydra.errors import HydraException
    from omegaconf import DictConfig, OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    from harness.settings import compose
    from harness.settings.command import disk_trouble, interrupted
    from harness.settings.explain import explain
    from harness.settings.provenance import remember_command_line
    from harness.settings.words import readable
    from slurm import launcher


@hydra.main(version_base="1.3", config_path=f"pkg://{compose.CONFIG_MODULE}", config_name="config")
def main(config: DictConfig) -> None:
    with open_dict(config):
        config.hydra = OmegaConf.create(OmegaConf.to_container(HydraConfig.instance().cfg.hydra, resolve=False))
    plan = compose.plan_from(config)
    cluster = plan.config.cluster
    executor = "debug" if cluster.executor == "local" and cluster.ranks == 1 else None  # one run needs no worker
    sys.exit(launcher.launch([plan], [[*config.hydra.overrides.task, *launcher.search_path(config)]], executor))


if __name__ == "__main__":
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra's own handler would hide which setting was wrong
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without ± or ü is no reason to fail
    remember_command_line()
    compose.register()
    launcher.register()
    try:
        sys.argv[1:] = readable(sys.argv[1:])
        main()
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        sys.exit(explain(error))
    except OSError as error:
        sys.exit(disk_trouble(error))
    except KeyboardInterrupt:
        sys.exit(interrupted())
