#!/bin/sh
# Makes what kafka-secured.yml needs, in the directory that is its argument: an authority (ca.pem), the brokers' key and
# certificate (server.pem), and a client's (client.pem, client.key). Nothing that is there is made again.
#
# For tests on one machine: everybody there can read the keys.
set -eu
cd "$1"
[ ! -e client.pem ] || exit 0

key() {
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"
}

key ca.key
openssl req -x509 -new -key ca.key -subj "/CN=kwal docker" -days 3650 -out ca.pem \
    -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign"

# sign NAME EXTENSIONS
sign() {
    key "$1.key"
    openssl req -new -key "$1.key" -subj "/CN=$1" -out "$1.csr"
    printf '%s\n' "$2" >"$1.ext"
    openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt"
    rm "$1.csr" "$1.ext"
}

sign server "extendedKeyUsage=serverAuth
subjectAltName=DNS:localhost,DNS:kafka-1,DNS:kafka-2,DNS:kafka-3,IP:127.0.0.1"
cat server.key server.crt ca.pem >server.pem

sign client "extendedKeyUsage=clientAuth"
chmod 644 ./*
# The last one, so that it tells whether all are there.
mv client.crt client.pem
