"""The name under which batch scripts that are already submitted call slurm.requeue."""

import sys

from slurm.requeue import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
