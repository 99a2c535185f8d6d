"""Python's standard library in spec/bench/compare.lua: python.py CASE, account in the environment."""
import imaplib
import os
import smtplib
import ssl
import sys

count = int(os.environ["BENCH_COUNT"])
password = os.environ["BENCH_PASSWORD"]
context = ssl.create_default_context(cafile=os.environ["BENCH_CA"])


def fetch(items):
    client = imaplib.IMAP4_SSL("127.0.0.1", int(os.environ["BENCH_IMAPS"]), ssl_context=context)
    client.login("alice", password)
    client.select("INBOX", readonly=True)
    _, data = client.uid("FETCH", "1:*", items)
    got = sum(1 for part in data if isinstance(part, tuple) or b"UID" in part)
    assert got == count, got
    client.logout()


def metadata():
    fetch("(UID FLAGS INTERNALDATE RFC822.SIZE ENVELOPE BODYSTRUCTURE)")


def bodies():
    fetch("(BODY.PEEK[])")


def send():
    with open(os.environ["BENCH_MESSAGE"], "rb") as file:
        message = file.read()
    client = smtplib.SMTP_SSL("127.0.0.1", int(os.environ["BENCH_SMTPS"]), context=context)
    client.login("alice", password)
    for _ in range(count):
        client.sendmail("bob@example.test", ["alice@example.test"], message)
    client.quit()


{"metadata": metadata, "bodies": bodies, "send": send}[sys.argv[1]]()
