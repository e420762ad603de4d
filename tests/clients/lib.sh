# Helpers of the client scripts. `. "$AKV_CLIENTS/lib.sh"`, under `sh -eu`.

# say TEXT…: what is being checked, so that a failure's output reads as a story.
say() { printf -- '-- %s\n' "$*"; }

# fail TEXT…
fail() {
    printf 'FAILED: %s\n' "$*"
    exit 1
}

# counter SERVICE OPERATION: how often so far, e.g. `counter vault:kv1 keys/sign`.
counter() {
    curl --silent --show-error --fail --max-time 10 "$AKV_EMULATOR_CONTROL/counters" |
        jq --arg service "$1" --arg operation "$2" '.[$service][$operation] // 0'
}

# expect_counted SERVICE OPERATION COUNT COMMAND…: the command succeeds, and causes exactly so many
# of these operations at the service.
expect_counted() {
    counted_service=$1 counted_operation=$2 counted_count=$3
    shift 3
    counted_before=$(counter "$counted_service" "$counted_operation")
    "$@" || fail "exit code $? of: $*"
    counted=$(($(counter "$counted_service" "$counted_operation") - counted_before))
    [ "$counted" -eq "$counted_count" ] ||
        fail "$counted, not $counted_count, of $counted_operation at $counted_service by: $*"
}

# refused COMMAND…: must not succeed.
refused() {
    if "$@"; then fail "was not refused: $*"; fi
}

# service_of TOKEN: the counters' name of a token's service.
service_of() {
    case $1 in
    hsm*) echo "managed-hsm:$1" ;;
    *) echo "vault:$1" ;;
    esac
}
