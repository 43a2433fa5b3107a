#!/bin/sh
# Makes the secrets that are missing, each a file that only its owner can read; keeps those there.
# sh deploy/secrets.sh [DIRECTORY]
set -eu
umask 077
directory=${1:-$(dirname "$0")/secrets}
mkdir -p "$directory"

random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }

make() { # NAME CONTENT
    [ -e "$directory/$1" ] && return
    printf '%s\n' "$2" >"$directory/$1"
    echo "made $directory/$1"
}

make broker_password "$(random)"
make database_password "$(random)"
make gateway_key "sk-uptier-$(random)"
make flower_login "uptier:$(random)"
make grafana_password "$(random)"
make anthropic_api_key ""
