"""What the programs of tests/support/processes.py import, imported before they are forked."""

import gc

import uvicorn.lifespan.on
import uvicorn.loops.uvloop

import auth.main
import crm_sync.main
import crm_sync.worker
import leads.main
import leads.worker
import simulators.app
import workflows.main
import workflows.worker

__all__ = ["auth", "crm_sync", "leads", "simulators", "uvicorn", "workflows"]

gc.collect()
gc.freeze()  # a collection in a process would copy the pages that it shares with the others
