#!/bin/sh
# Starts Valkey with the users of users.acl. Passwords come from the environment; only their SHA-256 is written down.
set -eu

here=$(dirname "$0")
directory=${VALKEY_RUN_DIRECTORY:-/run/valkey}

hashed() {
  if [ ${#1} -lt 16 ]; then
    echo "a password of Valkey is missing or shorter than 16 characters" >&2
    exit 1
  fi
  printf '#%s' "$(printf %s "$1" | sha256sum | cut -d ' ' -f 1)"
}

web=$(hashed "${VALKEY_WEB_PASSWORD:-}")
push=$(hashed "${VALKEY_PUSH_PASSWORD:-}")
metrics=$(hashed "${VALKEY_METRICS_PASSWORD:-}")

umask 077
sed -e "s/%WEB%/$web/" -e "s/%PUSH%/$push/" -e "s/%METRICS%/$metrics/" "$here/users.acl" |
  awk '/^#/ || /^$/ { next }
       /^user/ { if (line) print line; line = $0; next }
       { sub(/^ +/, " "); line = line $0 }
       END { print line }' >"$directory/users.acl"
unset VALKEY_WEB_PASSWORD VALKEY_PUSH_PASSWORD VALKEY_METRICS_PASSWORD

set -- valkey-server "$here/valkey.conf" --dir "${VALKEY_DATA_DIRECTORY:-/data}" --aclfile "$directory/users.acl" "$@"

# In the official image its own start script changes from root to the user valkey.
if [ "$(id -u)" = 0 ] && command -v docker-entrypoint.sh >/dev/null; then
  chown valkey "$directory/users.acl"
  exec docker-entrypoint.sh "$@"
fi
exec "$@"
