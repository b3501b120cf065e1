"""Download every small data set: `python -m kexue_lib.data`, which is `make data`."""

import sys

from kexue_lib.data import DataError, download_all

if __name__ == "__main__":
    try:
        download_all()
    except DataError as error:
        sys.exit(str(error))
