#!/usr/bin/env bash
# Installs Grafana on Amazon Linux 2023, with the boards, the data source and the alerts beside
# this script, behind a certificate of its own. Its passwords come from Secrets Manager, again
# whenever they change (climatestream-grafana-secrets.timer).
# ROOT is a folder in place of /, for tests.
set -euo pipefail
cd "$(dirname "$0")"
ROOT=${ROOT:-}
etc=$ROOT/etc/grafana

install -D --mode 0644 grafana.repo "$ROOT/etc/yum.repos.d/grafana.repo"
dnf install --assumeyes --quiet "grafana-$GRAFANA_VERSION"

mkdir -p "$etc/tls"
cp -R files/provisioning files/boards "$etc"

# the key never leaves this instance, which a new one replaces long before the ten years are over
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj "/CN=climatestream Grafana" -keyout "$etc/tls/key.pem" -out "$etc/tls/certificate.pem" \
    2>/dev/null
chmod 0640 "$etc/tls/key.pem"
chgrp grafana "$etc/tls/key.pem"

{
    printf 'GF_SERVER_PROTOCOL="https"\n'
    printf 'GF_SERVER_HTTP_PORT="3000"\n'
    printf 'GF_SERVER_CERT_FILE="/etc/grafana/tls/certificate.pem"\n'
    printf 'GF_SERVER_CERT_KEY="/etc/grafana/tls/key.pem"\n'
    printf 'GF_AUTH_ANONYMOUS_ENABLED="false"\n'
    printf 'GF_USERS_ALLOW_SIGN_UP="false"\n'
    printf 'GF_SECURITY_COOKIE_SECURE="true"\n'
    printf 'GF_SECURITY_STRICT_TRANSPORT_SECURITY="true"\n'
    printf 'GF_ANALYTICS_REPORTING_ENABLED="false"\n'
    printf 'GF_ANALYTICS_CHECK_FOR_UPDATES="false"\n'
    printf 'GF_NEWS_NEWS_FEED_ENABLED="false"\n'
    printf 'GF_PLUGINS_PLUGIN_ADMIN_ENABLED="false"\n'
    printf 'CRATEDB_SSLMODE="verify-full"\n'
    for name in CRATEDB_POSTGRES CRATEDB_READER CLIMATESTREAM_ALERT_EMAIL; do
        printf '%s="%s"\n' "$name" "${!name}"
    done
} >"$etc/climatestream.env"
{
    for name in READER_SECRET ADMIN_SECRET AWS_REGION; do
        printf '%s="%s"\n' "$name" "${!name}"
    done
} >"$etc/secrets-from.env"

install -D --mode 0755 climatestream-grafana-secrets \
    "$ROOT/usr/local/bin/climatestream-grafana-secrets"
for unit in climatestream-grafana-secrets.service climatestream-grafana-secrets.timer; do
    install -D --mode 0644 "$unit" "$ROOT/etc/systemd/system/$unit"
done
install -D --mode 0644 grafana-server.conf \
    "$ROOT/etc/systemd/system/grafana-server.service.d/climatestream.conf"
systemctl daemon-reload
systemctl start climatestream-grafana-secrets.service
systemctl enable --now climatestream-grafana-secrets.timer
systemctl enable --now grafana-server
