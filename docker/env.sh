#!/bin/sh
# Writes docker/.env, with passwords for compose.yaml that nobody else has, unless it is there.
set -eu
cd "$(dirname "$0")"
[ ! -e .env ] || exit 0
umask 077
secret() { od -An -N32 -tx1 /dev/urandom | tr -d ' \n'; }
cat > .env.new <<END
ADMIN_TOKEN=$(secret)
RABBITMQ_PASSWORD=$(secret)
REDIS_PASSWORD=$(secret)
GRAFANA_PASSWORD=$(secret)
ENCRYPTION_KEY=$(head -c 32 /dev/urandom | base64 | tr -d '\n')
END
mv .env.new .env
echo "docker/.env: made"
