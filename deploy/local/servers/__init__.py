"""Private instances of PostgreSQL, RabbitMQ, Redis and nginx on 127.0.0.1, all they write below one folder.

Standard library only: the command line uses it before any package is installed, the tests use it too.
"""

from deploy.local.servers.launch import Command, Launched, Server, ServerFailed, launch, stop, wait_ready
from deploy.local.servers.nginx import Nginx
from deploy.local.servers.ports import free_ports
from deploy.local.servers.postgresql import PostgreSQL
from deploy.local.servers.rabbitmq import Epmd, RabbitMQ
from deploy.local.servers.redis import Redis

__all__ = [
    "Command",
    "Epmd",
    "Launched",
    "Nginx",
    "PostgreSQL",
    "RabbitMQ",
    "Redis",
    "Server",
    "ServerFailed",
    "free_ports",
    "launch",
    "stop",
    "wait_ready",
]
