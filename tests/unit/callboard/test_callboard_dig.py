"""`dig`: how words become a question, what each answer prints, and its exit status."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from callboard import cli, digging
from callboard.failure import Failure
from registry.runtime.config import HostPort

SERVER = HostPort("127.0.0.1", 1053)
SRV = "_http._tcp.nmap_service.svc.internal"

Respond = Callable[[dnslib.DNSRecord], list[bytes]]


@contextmanager
def dns_server(respond: Respond, over_tcp: Respond | None = None) -> Iterator[str]:
    """A DNS server on a free port, UDP and TCP, that sends what *respond* says."""
    tcp = socket.create_server(("127.0.0.1", 0))
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(tcp.getsockname())

    def serve_udp() -> None:
        while True:
            data, peer = udp.recvfrom(4096)
            if data == b"stop":
                return
            for packet in respond(dnslib.DNSRecord.parse(data)):
                udp.sendto(packet, peer)

    def serve_tcp() -> None:
        while True:
            client, _ = tcp.accept()
            with client, client.makefile("rb") as stream:
                size = stream.read(2)
                if not size:
                    return
                query = dnslib.DNSRecord.parse(stream.read(struct.unpack("!H", size)[0]))
                for packet in (over_tcp or respond)(query):
                    client.sendall(struct.pack("!H", len(packet)) + packet)

    threads = [threading.Thread(target=serve) for serve in (serve_udp, serve_tcp)]
    for thread in threads:
        thread.start()
    host, port = tcp.getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        udp.sendto(b"stop", (host, port))
        socket.create_connection((host, port)).close()
        for thread in threads:
            thread.join()
        udp.close()
        tcp.close()


def answering(zone: str, additional: str = "") -> Respond:
    def respond(query: dnslib.DNSRecord) -> list[bytes]:
        reply = query.reply(ra=0)
        if zone:
            reply.add_answer(*dnslib.RR.fromZone(zone))
        if additional:
            reply.add_ar(*dnslib.RR.fromZone(additional))
        return [bytes(reply.pack())]

    return respond


def refusing(rcode: str) -> Respond:
    def respond(query: dnslib.DNSRecord) -> list[bytes]:
        reply = query.reply(ra=0)
        reply.header.rcode = getattr(dnslib.RCODE, rcode)
        return [bytes(reply.pack())]

    return respond


ONE = answering(
    f"{SRV}. 5 IN SRV 0 100 8047 n-1.nmap-service.svc.internal.",
    "n-1.nmap-service.svc.internal. 5 IN A 127.0.0.31",
)


def test_an_answer_looks_like_digs(capsys: pytest.CaptureFixture[str]) -> None:
    with dns_server(ONE) as server:
        assert cli.run(["dig", SRV, "SRV", "--dns", server]) == 0

    out, err = capsys.readouterr()
    assert err == ""
    assert "opcode: QUERY, status: NOERROR" in out
    assert ";; flags: qr aa rd; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1" in out
    assert f";; QUESTION SECTION:\n;{SRV}.\tIN\tSRV" in out
    assert (
        ";; ANSWER SECTION:\n"
        f"{SRV}.  5  IN  SRV   0 100 8047 n-1.nmap-service.svc.internal.\n" in out
    )
    assert "n-1.nmap-service.svc.internal.  5  IN  A     127.0.0.31\n" in out
    assert f";; SERVER: {server} (UDP)" in out
    assert ";; Query time: " in out


@pytest.mark.parametrize("words", [["-o", "name"], ["+short"]])
def test_data_alone(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with dns_server(ONE) as server:
        assert cli.run(["dig", SRV, "SRV", "--dns", server, *words]) == 0

    assert capsys.readouterr().out == "0 100 8047 n-1.nmap-service.svc.internal.\n"


def test_json_has_every_section(capsys: pytest.CaptureFixture[str]) -> None:
    with dns_server(ONE) as server:
        assert cli.run(["dig", SRV, "SRV", f"@{server}", "-o", "json"]) == 0

    document = json.loads(capsys.readouterr().out)
    assert (document["status"], document["flags"]) == ("NOERROR", ["qr", "aa", "rd"])
    assert document["answer"] == [
        {
            "name": f"{SRV}.",
            "ttl": 5,
            "class": "IN",
            "type": "SRV",
            "data": "0 100 8047 n-1.nmap-service.svc.internal.",
        }
    ]
    assert [entry["type"] for entry in document["additional"]] == ["A"]
    assert (document["server"], document["transport"]) == (server, "UDP")


@pytest.mark.parametrize(
    ("respond", "status"),
    [
        (refusing("NXDOMAIN"), 3),
        (answering(""), 3),
        (refusing("SERVFAIL"), 1),
        (refusing("REFUSED"), 1),
    ],
)
def test_the_exit_status_says_what_kind_of_answer(respond: Respond, status: int) -> None:
    with dns_server(respond) as server:
        assert cli.run(["dig", SRV, "--dns", server]) == status


def test_a_name_without_a_dot_is_completed_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with dns_server(answering("x. 5 IN A 10.0.0.1")) as server:
        assert cli.run(["dig", "nmap_service", "--dns", server, "--zone", "my.zone"]) == 0

    out, err = capsys.readouterr()
    assert ";nmap_service.my.zone.\tIN\tA" in out
    assert err == "'nmap_service' has no dot: asking for nmap_service.my.zone.\n"


def test_what_does_not_fit_is_asked_for_again_over_tcp(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def truncated(query: dnslib.DNSRecord) -> list[bytes]:
        reply = query.reply(ra=0)
        reply.header.tc = 1
        return [bytes(reply.pack())]

    with dns_server(truncated, over_tcp=ONE) as server:
        assert cli.run(["dig", SRV, "SRV", "--dns", server]) == 0

    assert "(TCP)" in capsys.readouterr().out


def test_tcp_alone_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with dns_server(refusing("SERVFAIL"), over_tcp=ONE) as server:
        assert cli.run(["dig", SRV, "SRV", "+tcp", "--dns", server]) == 0

    assert "(TCP)" in capsys.readouterr().out


def test_answers_to_other_questions_are_not_believed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def forged_first(query: dnslib.DNSRecord) -> list[bytes]:
        forged = query.reply(ra=0)
        forged.header.id ^= 1
        forged.add_answer(*dnslib.RR.fromZone("x. 5 IN A 6.6.6.6"))
        return [b"", b"\0" * 12, bytes(forged.pack()), *ONE(query)]

    with dns_server(forged_first) as server:
        assert cli.run(["dig", SRV, "SRV", "--dns", server]) == 0

    assert "6.6.6.6" not in capsys.readouterr().out


def test_an_answer_that_cannot_be_read_is_1(capsys: pytest.CaptureFixture[str]) -> None:
    def broken(query: dnslib.DNSRecord) -> list[bytes]:
        return [bytes(query.reply().pack())[:12][:4] + b"\0\1\0\1\0\0\0\0" + b"\xc0\xff"]

    with dns_server(broken) as server:
        assert cli.run(["dig", SRV, "--dns", server]) == 1

    assert "cannot be read" in capsys.readouterr().err


def test_nobody_there_is_4(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    assert cli.run(["dig", SRV, "--dns", f"127.0.0.1:{port}", "--json"]) == 4

    error = json.loads(capsys.readouterr().err)["error"]
    assert error["messages"] == [f"DNS server 127.0.0.1:{port} (UDP): Connection refused"]


def test_control_characters_of_strangers_are_not_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def hostile(query: dnslib.DNSRecord) -> list[bytes]:
        reply = query.reply(ra=0)
        reply.add_answer(dnslib.RR("x.", dnslib.QTYPE.TXT, ttl=5, rdata=dnslib.TXT("\x1b[2J")))
        return [bytes(reply.pack())]

    with dns_server(hostile) as server:
        assert cli.run(["dig", "x.", "TXT", "--dns", server]) == 0

    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "name", "qtype", "server"),
    [
        (["a.b"], "a.b.", "A", "127.0.0.1:1053"),
        (["a.b.", "srv"], "a.b.", "SRV", "127.0.0.1:1053"),
        (["SRV", "a.b"], "a.b.", "SRV", "127.0.0.1:1053"),
        (["@10.0.0.1", "a.b", "TYPE65"], "a.b.", "TYPE65", "10.0.0.1:53"),
        (["a.b", "@[::1]:54"], "a.b.", "A", "[::1]:54"),
        (["a.b", "@::1"], "a.b.", "A", "[::1]:53"),
        (["a.b", "@[::1]"], "a.b.", "A", "[::1]:53"),
        (["a"], "a.svc.internal.", "A", "127.0.0.1:1053"),
    ],
)
def test_words_come_in_any_order(words: list[str], name: str, qtype: str, server: str) -> None:
    question = digging.question_of(words, SERVER, "svc.internal.")

    assert (question.name, question.qtype, str(question.server)) == (name, qtype, server)


def test_switches_are_digs() -> None:
    question = digging.question_of(["a.b", "+tcp", "+norec", "+noedns"], SERVER, "svc.internal")

    assert (question.tcp, question.recursion, question.edns) == (True, False, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "NAME is missing"),
        (["a.b", "SVR"], "did you mean SRV?"),
        (["a.b", "+tpc"], "did you mean +tcp?"),
        (["a.b", "@x:y"], "server @x:y"),
        (["a.b", "A", "c.d"], "'c.d' is no record type"),
    ],
)
def test_wrong_words_are_wrong_usage(words: list[str], said: str) -> None:
    with pytest.raises(Failure) as caught:
        digging.question_of(words, SERVER, "svc.internal")

    assert said in str(caught.value)
    assert caught.value.status == 2


def test_a_name_that_is_none_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["dig", f"{'x' * 64}.b"]) == 2

    assert "no DNS name" in capsys.readouterr().err


@given(st.binary(min_size=12, max_size=200))
def test_any_bytes_are_an_answer_or_a_failure(packet: bytes) -> None:
    question = digging.Question("a.b.", "A", SERVER)

    try:
        result, status = digging.understand(question, digging.Reply(packet, "UDP", 0.001))
    except Failure as failure:
        status, text = failure.status, str(failure)
    else:
        text = result.table

    assert status in (0, 1, 3)
    assert "\x1b" not in text
