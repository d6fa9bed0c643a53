#!/bin/sh
# Write docs/report.png, a part of the report of the default run:  make run && docs/report_picture.sh
# Needs Chromium, which tests/install_browser.sh installs.
set -eu
cd "$(dirname "$0")/.."
for name in chromium chromium-browser google-chrome chrome ""; do
    browser=$(command -v "$name") && break
done
[ "$browser" ] || { echo "no Chromium; run tests/install_browser.sh as root" >&2 && exit 1; }
page=$(mktemp --suffix=.html)
trap 'rm -f "$page"' EXIT
# A frame, as the browser does not scroll before it takes the picture.
style="position: absolute; top: 0; left: 0; width: 1120px; height: 770px; border: 0"
echo "<iframe src='file://$PWD/results/report.html#benchmark1' style='$style'></iframe>" >"$page"
"$browser" --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1120,770 \
    --screenshot=docs/report.png "file://$page"
