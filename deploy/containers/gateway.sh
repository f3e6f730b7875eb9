#!/bin/sh
# The gateway's container: `serve` (the default), `check` its configuration, `reload` it without a failed request (as gateway/reload.py).
set -eu
run=/run/gateway
from="-e stderr -p $run/configuration -c $run/configuration/nginx.conf"

configure() {
  mkdir -p "$run/log" "$run/temp"
  ln -sf /dev/stdout "$run/log/access.log"
  ln -sf /dev/stderr "$run/log/error.log"
  export WORKERS="${WORKERS:-1}" REQUEST_RATE="${REQUESTS_PER_SECOND:-1000}r/s" REQUEST_BURST="${REQUEST_BURST:-2000}" \
    CONNECTIONS="${CONNECTIONS_PER_CLIENT:-2000}" UNLIMITED=""
  for network in ${UNLIMITED_NETWORKS:-127.0.0.0/8 ::1/128}; do UNLIMITED="$UNLIMITED $network 1;"; done
  (cd /etc/gateway && find . -type f) | while read -r file; do
    mkdir -p "$run/configuration/$(dirname "$file")"
    # shellcheck disable=SC2016  # envsubst wants the names
    envsubst '${WORKERS} ${REQUEST_RATE} ${REQUEST_BURST} ${CONNECTIONS} ${UNLIMITED}' \
      < "/etc/gateway/$file" > "$run/configuration/$file"
  done
}

# shellcheck disable=SC2086  # several words
case "${1:-serve}" in
  serve)
    configure
    rm -f "$run/closing"
    exec nginx $from -g "daemon off;"
    ;;
  check)
    configure
    exec nginx $from -t
    ;;
  reload)
    nginx $from -t
    touch "$run/closing"
    trap 'rm -f "$run/closing"' EXIT
    sleep 0.5
    nginx $from -s reload
    sleep 0.5
    ;;
  *) exec "$@" ;;
esac
