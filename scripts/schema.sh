#!/bin/sh
# Generates src/wire/generated.rs from src/wire/ringway.fbs.
#
#   scripts/schema.sh           writes the file
#   scripts/schema.sh --check   writes nothing; fails if the committed file is not what the schema generates
#
# The compiler is built once, from the flatc crate (which needs cmake and a C++ compiler), under target/schema.
# Another flatc of the same version can be used instead: FLATC=/path/to/flatc scripts/schema.sh
set -eu

flatc_version=23.5.26
flatc_crate=0.2.2+23.5.26

cd "$(dirname "$0")/.."
schema=src/wire/ringway.fbs
generated=src/wire/generated.rs
work=target/schema

case "${1-}" in
    "" | --check) ;;
    *) echo "usage: scripts/schema.sh [--check]" >&2; exit 2 ;;
esac

# Prints the path of the compiler, after building it if it is not there yet.
build_flatc() {
    for tool in cmake c++; do
        if ! command -v "$tool" >/dev/null; then
            echo "schema: $tool is missing, and the FlatBuffers compiler is built with it." >&2
            echo "schema: on Debian or Ubuntu: apt-get install cmake g++; or set FLATC to a flatc $flatc_version." >&2
            exit 1
        fi
    done
    mkdir -p "$work/flatc/src"
    cat >"$work/flatc/Cargo.toml" <<TOML
[package]
name = "print-flatc"
version = "0.0.0"
edition = "2021"
publish = false

[dependencies]
flatc = "=$flatc_crate"

[workspace]
TOML
    echo 'fn main() { println!("{}", flatc::flatc().display()) }' >"$work/flatc/src/main.rs"
    CARGO_TARGET_DIR="$work/flatc/target" cargo run --quiet --manifest-path "$work/flatc/Cargo.toml"
}

flatc=${FLATC:-$(build_flatc)}
found=$("$flatc" --version)
if [ "$found" != "flatc version $flatc_version" ]; then
    echo "schema: expected flatc version $flatc_version, found: $found ($flatc)" >&2
    exit 1
fi

rm -rf "$work/out"
mkdir -p "$work/out"
"$flatc" --rust -o "$work/out" "$schema"

if [ "${1-}" = --check ]; then
    if ! cmp -s "$work/out/ringway_generated.rs" "$generated"; then
        echo "schema: $generated is not what $schema generates; run: make schema" >&2
        exit 1
    fi
    echo "schema: $generated is what $schema generates"
else
    cp "$work/out/ringway_generated.rs" "$generated"
    echo "schema: wrote $generated"
fi
