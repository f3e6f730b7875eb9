from chassis.server import serve
from crm_sync.main import create
from crm_sync.settings import CrmSyncSettings

if __name__ == "__main__":
    settings = CrmSyncSettings()
    serve(lambda: create(settings), settings)
