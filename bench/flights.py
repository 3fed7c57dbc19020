"""Count the round trips ("flights") of each client.

  python flights.py [-a client,client] [--delay-ms 10] [--detail]

The sink delays every reply by some ms, so a client that does not wait for a reply is
counted correctly. A flight is client data after a reply of the sink; the TCP handshake and the
greeting (two more round trips before the first flight) are not counted. Phases:

  set-up       from the greeting to the first MAIL
  first (1)    the first message, to its final reply; 1 recipient
  next (1)     each further message on the kept connection; 1 recipient
  next (10)    the same with 10 recipients
  after        after the last message (QUIT, RSET; no client has to wait for QUIT)

--detail prints the contents of each flight.
"""

import argparse
import json
import os

import harness
from adapters import ADAPTERS
from harness import table
from run import one


def detail(path):
    flights = {}
    with open(path) as f:
        for line in f:
            conn, flight, what = line.rstrip("\n").split("\t")
            if what.startswith("message"):
                continue
            v = flights.setdefault((int(conn), int(flight)), [])
            if what == "(content)" and v and v[-1].split(" x")[0] == what:
                continue
            if v and v[-1].split(" x")[0] == what:
                n = int(v[-1].split(" x")[1]) if " x" in v[-1] else 1
                v[-1] = "%s x%d" % (what, n + 1)
            else:
                v.append(what)
    return " | ".join("+".join(v) for k, v in sorted(flights.items()))


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("-a", "--adapters", default=",".join(ADAPTERS))
    p.add_argument("--delay-ms", type=float, default=10)
    p.add_argument(
        "--ext", help="the sink's extensions, e.g. STARTTLS,AUTH,8BITMIME,SIZE (no PIPELINING)"
    )
    p.add_argument("--detail", action="store_true")
    p.add_argument("--python")
    p.add_argument("--work")
    p.add_argument("--build")
    p.add_argument("--out")
    a = p.parse_args()
    env = harness.Env(a.work, a.build, a.python)
    rows, data, details = [], {}, []
    for name in a.adapters.split(","):
        ad = ADAPTERS[name]
        tls = "starttls" if "starttls" in ad["tls"] else "none"
        base = dict(
            size=4096,
            delay=a.delay_ms,
            tls=tls,
            unit="s",
            timeout=60,
            mode="reuse" if "reuse" in ad["modes"] else "fresh",
        )
        extra = ["--ext", a.ext] if a.ext else []
        log = os.path.join(env.work, "flights.log")
        r1 = one(env, name, ad, dict(base, n=3), "same", sink_args=[*extra, "--flight-log", log])
        if r1["why"]:
            print("%s: %s" % (name, r1["why"]))
            continue
        d1 = detail(log)
        r10 = one(env, name, ad, dict(base, n=3, r=10), "same", sink_args=extra)
        s1, s10 = r1["sink"], r10["sink"]
        rec = {
            "setup": s1["flights_setup"]["mean"],
            "first_1": s1["flights_first_message"]["mean"],
            "next_1": s1["flights_next_message"]["mean"]
            if s1["flights_next_message"]["n"]
            else None,
            "first_10": s10["flights_first_message"]["mean"],
            "next_10": s10["flights_next_message"]["mean"]
            if s10["flights_next_message"]["n"]
            else None,
            "after": s1["flights_after_last"]["mean"],
            "detail": d1,
            "problem_10": r10["why"],
        }
        rec["fresh_total"] = rec["setup"] + rec["first_1"]
        data[name] = rec
        rows.append(
            [
                name + (" (plain)" if tls == "none" else ""),
                rec["setup"],
                rec["first_1"],
                rec["fresh_total"],
                rec["next_1"],
                rec["first_10"],
                rec["next_10"],
                rec["after"],
            ]
        )
        details.append("%-18s %s" % (name, d1))
    rows.sort(key=lambda r: (r[4] if r[4] is not None else 99, r[3]))
    print(
        table(
            [
                "client",
                "set-up",
                "first (1)",
                "fresh message",
                "next (1)",
                "first (10)",
                "next (10)",
                "after",
            ],
            rows,
        )
    )
    if a.detail:
        print("\n" + "\n".join(details))
    if a.out:
        with open(a.out, "w") as f:
            json.dump(data, f, indent=1)


if __name__ == "__main__":
    main()
