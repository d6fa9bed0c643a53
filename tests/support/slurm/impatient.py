"""snakemake as it is, but that it asks for the states of its jobs each second.

The plugin waits ten seconds longer after each time that no job has ended, which is right on a busy cluster.
"""

import asyncio
import sys
from typing import Any

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep(_: Any) -> None:
    """Wait for the next time to ask."""
    await asyncio.sleep(1)


RemoteExecutor.sleep = sleep
main(sys.argv[1:])
