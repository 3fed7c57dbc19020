#!/bin/sh
# Runs once, when the primary is made: the user and the database of the relays, and the user of the standby.
set -eu

psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username postgres --dbname postgres \
    --set relay="$POSTGRES_PASSWORD" --set replication="$REPLICATION_PASSWORD" <<'SQL'
CREATE ROLE relay LOGIN PASSWORD :'relay';
CREATE ROLE replication LOGIN REPLICATION PASSWORD :'replication';
CREATE DATABASE mail OWNER relay;
-- In effect from the next start on, when there can be a standby: a message is accepted when it is on two machines.
ALTER SYSTEM SET synchronous_standby_names = 'ANY 1 (*)';
ALTER SYSTEM SET max_wal_size = '8GB';
ALTER SYSTEM SET autovacuum_naptime = '5s';
SQL
echo 'host replication replication all scram-sha-256' >>"$PGDATA/pg_hba.conf"
