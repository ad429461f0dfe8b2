#!/usr/bin/env bash
# Builds what is released, into a folder that it empties first:
#
#   infra/release/build.sh [--out DIR] [--version VERSION] [--only PATTERN]... [--check]
#
#   NAME-VERSION-OS-ARCH[.exe]           deviceagent and bridge for all, relay for Linux on amd64 and arm64
#   NAME-VERSION-OS-ARCH[.exe].cdx.json  its SBOM (CycloneDX), read from the program itself
#   SHA256SUMS                           of all of that
#
#   --out DIR          default: dist
#   --version VERSION  default: what git describe says
#   --only PATTERN     builds only what the pattern matches, such as 'deviceagent-linux-*'
#   --check            builds everything once more from a copy of the tree, with a build
#                      cache of its own, and compares: the same source gives the same bytes
#
# It fails if a deviceagent is over 10 MB: that is what devices with small flash can hold.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly SBOM=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.9.0
readonly MAX_AGENT=10000000 # bytes

# OS/ARCH[/VARIANT]; the variant is GOARM or GOMIPS.
readonly TARGETS=(linux/amd64 linux/arm64 linux/arm/7 linux/arm/6 linux/arm/5 linux/386 linux/mips/softfloat
  linux/mipsle/softfloat linux/riscv64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64)

declare -A MAINS=([deviceagent]=./deviceagent/cmd/deviceagent [bridge]=./relay/cmd/bridge [relay]=./relay/cmd/relay)

out=dist version='' check='' only=()
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a folder}; shift ;;
    --version) version=${2:?--version needs one}; shift ;;
    --only) only+=("${2:?--only needs a pattern}"); shift ;;
    --check) check=yes ;;
    -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "${BASH_SOURCE[0]}"; exit ;;
    *) echo "build.sh: unknown argument $1; see --help" >&2; exit 2 ;;
  esac
  shift
done
[ -n "$version" ] || version=$(git describe --tags --always --dirty)
case $version in
  *[!A-Za-z0-9._+-]*) echo "build.sh: version $version is no part of a file name" >&2; exit 2 ;;
esac

wanted() {
  [ ${#only[@]} -gt 0 ] || return 0
  local pattern
  for pattern in "${only[@]}"; do
    # shellcheck disable=SC2053 # a pattern it is
    [[ $1 != $pattern ]] || return 0
  done
  return 1
}

# label NAME TARGET prints NAME-OS-ARCH, with armv7 for arm/7.
label() {
  local os arch variant
  IFS=/ read -r os arch variant <<<"$2"
  case $arch in arm) arch=armv$variant ;; esac
  echo "$1-$os-$arch"
}

# build NAME TARGET FILE
build() {
  local os arch variant
  IFS=/ read -r os arch variant <<<"$2"
  local env=(CGO_ENABLED=0 GOFLAGS='' GOOS="$os" GOARCH="$arch")
  case $arch in
    arm) env+=(GOARM="$variant") ;;
    mips*) env+=(GOMIPS="$variant") ;;
  esac
  # Without the folder, the state of the checkout, and symbols: the same bytes wherever
  # it is built.
  env "${env[@]}" go build -trimpath -buildvcs=false -ldflags "-s -w -buildid= -X websocketbridge/relay/settings.version=$version" -o "$3" "${MAINS[$1]}"
}

rm -rf "$out"
mkdir -p "$out"
built=() # NAME TARGET FILE
for target in "${TARGETS[@]}"; do
  for name in deviceagent bridge relay; do
    case $name-$target in
      relay-linux/amd64 | relay-linux/arm64 | deviceagent-* | bridge-*) ;;
      *) continue ;;
    esac
    what=$(label "$name" "$target")
    wanted "$what" || continue
    file=$name-$version-${what#"$name"-}
    case $target in windows/*) file+=.exe ;; esac
    build "$name" "$target" "$out/$file"
    built+=("$name $target $file")
    size=$(stat -c %s "$out/$file")
    printf '%-12s %-18s %5s MB\n' "$name" "${what#"$name"-}" "$(awk "BEGIN { printf \"%.2f\", $size / 1e6 }")"
    if [ "$name" = deviceagent ] && [ "$size" -gt "$MAX_AGENT" ]; then
      echo "build.sh: $file has $size bytes, and $MAX_AGENT are the most" >&2
      exit 1
    fi
  done
done
[ ${#built[@]} -gt 0 ] || { echo "build.sh: nothing matches ${only[*]}" >&2; exit 2; }

tool=$(mktemp -d)
trap 'rm -rf "$tool"' EXIT
GOBIN=$tool go install -trimpath "$SBOM"
for one in "${built[@]}"; do
  file=${one##* }
  # No serial number: it would be another one each time.
  "$tool/cyclonedx-gomod" bin -json -noserial -std -version "$version" -output "$out/$file.cdx.json" "$out/$file" 2>"$tool/log" ||
    { cat "$tool/log" >&2; exit 1; }
  sed -i '/^    "timestamp": /d' "$out/$file.cdx.json" # the same for the same program
done
(cd "$out" && sha256sum -- * >"$tool/sums" && mv "$tool/sums" SHA256SUMS)
echo "${#built[@]} programs of version $version, their SBOMs and SHA256SUMS are in $out"

if [ -n "$check" ]; then
  git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - | { mkdir -p "$tool/elsewhere" && tar -xf - -C "$tool/elsewhere"; }
  here=$PWD
  case $out in /*) ;; *) out=$here/$out ;; esac
  cd "$tool/elsewhere"
  export GOCACHE=$tool/cache
  for one in "${built[@]}"; do
    read -r name target file <<<"$one"
    build "$name" "$target" "$tool/again"
    cmp "$tool/again" "$out/$file" || { echo "build.sh: $file is not the same when it is built again" >&2; exit 1; }
  done
  echo "built again elsewhere, the same bytes"
fi
