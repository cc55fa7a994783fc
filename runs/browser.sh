#!/usr/bin/env bash
# A Chromium for the tests of the page: this machine's own, else the system's package, else Playwright's download.
set -euo pipefail
python=${1:-.venv/bin/python}
for name in chromium chromium-browser google-chrome; do
  if command -v "$name" > /dev/null; then exit 0; fi
done
if command -v apt-get > /dev/null && [ "$(id -u)" = 0 ]; then
  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium > /dev/null && exit 0
fi
"$python" -m playwright install chromium || echo "no browser could be installed: tests of the page are skipped" >&2
