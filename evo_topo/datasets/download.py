"""Downloading published files, all of a data set or none."""

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SECONDS_TO_WAIT = 10.0


def download_files(name: str, root: Path) -> None:
    """Fetches the published files of a data set to where they are then found below ``root``.

    Args:
        name: ``fashion-mnist``, ``cifar10`` or ``cifar100``.
        root: Folder that data sets are kept in; it is made where it is missing.

    Raises:
        OSError, RuntimeError, http.client.HTTPException: When the network or a file fails.
    """
    from torchvision import datasets
    from torchvision.datasets.utils import download_url

    if name == "fashion-mnist":
        folder, table = root / "FashionMNIST" / "raw", datasets.FashionMNIST
        files = [(table.mirrors[0] + file, file, md5) for file, md5 in table.resources]
    else:
        folder, cifar = root, {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
        files = [(cifar.url, cifar.filename, cifar.tgz_md5)]
    folder.mkdir(parents=True, exist_ok=True)
    # fetched aside and moved when all are whole: a broken download is never found later
    with tempfile.TemporaryDirectory(dir=folder) as aside, _network_timeout():
        for url, file, md5 in files:
            download_url(url, aside, file, md5)
        for _, file, _ in files:
            os.replace(Path(aside) / file, folder / file)


@contextmanager
def _network_timeout() -> Iterator[None]:
    """Gives up on a silent network: torchvision sets no limit of its own."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_SECONDS_TO_WAIT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
