#!/bin/sh
# Adds up the sales of each region and writes out/report.csv, whole or not at all.
set -eu
cd "$(dirname "$0")/.."
mkdir -p out
draft="out/.report.csv.$$"
trap 'rm -f "$draft"' EXIT
echo "region,total" > "$draft"
for region in north east south west; do
    total=$(awk -F, -v region="$region" '$1 == region { sum += $2 } END { print sum + 0 }' data/sales.csv)
    echo "$region,$total" >> "$draft"
    echo "counted $region: $total"
    sleep 0.7
done
mv "$draft" out/report.csv
echo "out/report.csv is written"
