"""One file of a hub data set at a pinned revision, from the hub's cache on this machine or, online, from the hub.

Written as `hub:OWNER/NAME@REVISION:FILE`, it stands wherever a path does.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PREFIX = "hub:"
FORM = re.compile(r"hub:(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w.-]+):(?P<file>[\w./-]+)")


@dataclass(frozen=True)
class HubFile:
    repo: str
    revision: str  # a commit of the data set
    file: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}@{self.revision}:{self.file}"

    def fetch(self) -> Path:
        """The file on this machine. ValueError when it is neither cached nor to be had."""
        from huggingface_hub import hf_hub_download

        try:
            return Path(hf_hub_download(self.repo, self.file, repo_type="dataset", revision=self.revision))
        except Exception as error:  # network, authentication, a moved data set: the remedy is the same
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
            raise ValueError(f"{self} is neither in the hub's cache (HF_HOME) nor to be had ({reason})") from error


def local(path: str | Path) -> Path:
    """`path`, or the local copy of what `hub:…` names."""
    if not str(path).startswith(PREFIX):
        return Path(path)
    match = FORM.fullmatch(str(path))
    if not match:
        raise ValueError(f"{path}: expected hub:OWNER/NAME@REVISION:FILE")
    return HubFile(**match.groupdict()).fetch()
