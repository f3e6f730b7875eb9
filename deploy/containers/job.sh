#!/bin/sh
# What runs once before the services: `databases` makes and migrates them, `seed` puts in the administrator and the first leads.
set -eu

case "$1" in
  databases)
    # Each process has its pool, and two connections for the outbox and health; one replica more while one replaces another.
    limit() { echo $(($1 * (REPLICAS_MOST + 1) * (AUTH_DATABASE_POOL_SIZE + 2))); }
    AUTH_CONNECTION_LIMIT=$(limit 1)
    LEADS_CONNECTION_LIMIT=$(limit 2)   # the service and its worker
    WORKFLOWS_CONNECTION_LIMIT=$(limit 2)
    CRM_SYNC_CONNECTION_LIMIT=$(limit 2)
    export AUTH_CONNECTION_LIMIT LEADS_CONNECTION_LIMIT WORKFLOWS_CONNECTION_LIMIT CRM_SYNC_CONNECTION_LIMIT
    exec python -m chassis.provisioning auth leads workflows crm_sync
    ;;
  seed)
    made=$(python -m auth.seed)
    WORKSPACE_ID=$(python -c 'import json, sys; print(json.loads(sys.argv[1])["workspace_id"])' "$made")
    export WORKSPACE_ID
    exec python -m leads.seed
    ;;
esac
