#!/bin/sh
# The API with nothing but curl: generate a picture, wait for it, save it.
set -eu

server=${BABYSEA_BASE_URL:-http://localhost:8000}
prompt=${1:-a red fox in fresh snow}
body=$(printf '%s' "$prompt" | sed 's/[\\"]/\\&/g')

# The key goes through stdin: a command line can be read by everybody on the machine.
api() {
  printf 'header = "Authorization: Bearer %s"\n' "$BABYSEA_API_KEY" |
    curl -sS --fail-with-body --retry 3 --config - "$@"
}
member() {
  sed -n "s/.*\"$1\":\\[\\{0,1\\}\"\\([^\"]*\\)\".*/\\1/p"
}

# --retry is safe: sent again with the same Idempotency-Key, the request buys nothing more.
id=$(api "$server/v1/generate/image/bfl/flux-schnell" \
  -H "Content-Type: application/json" -H "Idempotency-Key: $(date +%s)-$$" \
  -d "{\"generation_prompt\":\"$body\"}" | member generation_id)

for second in 0 1 1 1 2 2 3 5 5 5 10 10 15 30 30; do
  sleep "$second"
  generation=$(api "$server/v1/content/$id")
  case $(printf %s "$generation" | member generation_status) in
    succeeded)
      curl -sS --fail -o fox "$(printf %s "$generation" | member generation_output_file)"
      echo fox
      exit 0 ;;
    failed | canceled)
      printf '%s\n' "$generation" >&2
      exit 1 ;;
  esac
done
echo "$id is still running" >&2
exit 1
