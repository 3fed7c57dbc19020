#!/bin/sh
# A standby of the server at $PRIMARY, which it copies when it starts for the first time.
set -eu

if [ ! -s "$PGDATA/PG_VERSION" ]; then
    until pg_basebackup --pgdata "$PGDATA" --write-recovery-conf --checkpoint=fast \
        --dbname "$PRIMARY user=replication application_name=standby"; do
        echo "the primary cannot be copied yet" >&2
        sleep 1
    done
    chmod 0700 "$PGDATA"
fi
exec postgres "$@"
