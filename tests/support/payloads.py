# ruff: noqa: E501 - payloads are read whole, on one line
"""Requests that are no requests, by what is wrong with them; and odd ones that are.

`REFUSED`: two readers could read them in two ways, so nobody gets to.  `PASSED`: well-formed, with
the body that an upstream must read; a proxy that refuses these is of no use.
"""

G = b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\n"
P = b"POST /v2/payments/a HTTP/1.1\r\nHost: g\r\n"
TE = b"Transfer-Encoding: chunked\r\n"
C = P + TE + b"\r\n"
CL = b"Content-Length: 5\r\n"
LAST = b"0\r\n\r\n"

_CONTROLS = [n for n in (*range(0x20), 0x7F) if n not in (0x09, 0x0A, 0x0D)]

LENGTHS = {
    "CL and TE": P + CL + TE + b"\r\n" + LAST,
    "TE and CL": P + TE + CL + b"\r\n" + LAST,
    "CL 0 and TE": P + b"Content-Length: 0\r\n" + TE + b"\r\n" + LAST,
    "two CL": P + CL + b"Content-Length: 6\r\n\r\nhello",
    "two equal CL": P + CL + CL + b"\r\nhello",
    "two CL, other case": P + CL + b"content-length: 6\r\n\r\nhello",
    **{
        f"CL {value!r}": P + b"Content-Length: " + value + b"\r\n\r\nhello"
        for value in (
            b"5, 5", b"5,6", b"+5", b"-5", b"-0", b"0x5", b"0b1", b"0o5", b"1_0", b"", b"5 5",
            b"5;", b"5.0", b"5e0", b"\"5\"", b"five", b"99999999999999999999", b"18446744073709551621",
            b"\x0c5", b"5\x0b", b"5\x00", "٥".encode(), "５".encode(), b"\xb2", b"5\xa0",
        )
    },
    "CL space colon": P + b"Content-Length : 5\r\n\r\nhello",
    "CL tab colon": P + b"Content-Length\t: 5\r\n\r\nhello",
    "CL vertical tab colon": P + b"Content-Length\x0b: 5\r\n\r\nhello",
    "CL folded": P + b"Content-Length:\r\n 5\r\n\r\nhello",
    "CL continued": P + b"Content-Length: 5\r\n 0\r\n\r\nhello",
    "CL after a space": P + b" Content-Length: 5\r\n\r\nhello",
    "CL after bare LF": P + b"X: y\nContent-Length: 5\r\n\r\nhello",
    "CL after bare CR": P + b"X: y\rContent-Length: 5\r\n\r\nhello",
    "CL in a GET, and TE": G + CL + TE + b"\r\n" + LAST,
}  # fmt: skip

CODINGS = {
    "TE twice": P + TE + TE + b"\r\n" + LAST,
    "TE chunked and identity": P + TE + b"Transfer-Encoding: identity\r\n\r\n" + LAST,
    "TE identity and chunked": P + b"Transfer-Encoding: identity\r\n" + TE + b"\r\n" + LAST,
    "TE, other case, twice": P + TE + b"TRANSFER-ENCODING: cow\r\n\r\n" + LAST,
    **{
        f"TE {value!r}": P + b"Transfer-Encoding: " + value + b"\r\n\r\n" + LAST
        for value in (
            b"identity", b"cow", b"chunked, chunked", b"chunked,", b",chunked", b"gzip, chunked",
            b"chunked, gzip", b"chunked, identity", b"identity, chunked", b"xchunked", b"chunkedx",
            b"chunked;q=1", b"\"chunked\"", b"'chunked'", b"chunke\xdb", b"chu\x00nked", b"chunked\x00",
            b"\x0bchunked", b"\x0cchunked", b"chunked\x1f", b"chun ked", b"ch\xc3\xbcnked", b"", b"\xa0chunked",
        )
    },
    "TE space colon": P + b"Transfer-Encoding : chunked\r\n\r\n" + LAST,
    "TE tab colon": P + b"Transfer-Encoding\t: chunked\r\n\r\n" + LAST,
    "TE NUL colon": P + b"Transfer-Encoding\x00: chunked\r\n\r\n" + LAST,
    "TE folded": P + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + LAST,
    "TE folded by a tab": P + b"Transfer-Encoding:\r\n\tchunked\r\n\r\n" + LAST,
    "TE after a space": P + b" Transfer-Encoding: chunked\r\n\r\n" + LAST,
    "TE after bare LF": P + b"X: y\nTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "TE after bare CR": P + b"X: y\rTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "TE after LF CR": P + b"X: y\n\rTransfer-Encoding: chunked\r\n\r\n" + LAST,
    "TE name cut": P + b"Transfer\r\n-Encoding: chunked\r\n\r\n" + LAST,
    "TE without colon": P + b"Transfer-Encoding chunked\r\n\r\n" + LAST,
    "TE with two colons before": P + b": Transfer-Encoding: chunked\r\n\r\n" + LAST,
    "TE in 1.0": C.replace(b"1.1", b"1.0") + LAST,
    "TE in 1.0, kept alive": P.replace(b"1.1", b"1.0") + b"Connection: keep-alive\r\n" + TE + b"\r\n" + LAST,
}  # fmt: skip

CHUNKS = {
    f"chunk {name}": C + body
    for name, body in {
        "size empty": b"\r\n" + LAST,
        "size prefix": b"0x5\r\nhello\r\n" + LAST,
        "size sign": b"+5\r\nhello\r\n" + LAST,
        "size negative": b"-5\r\nhello\r\n" + LAST,
        "size space": b"5 \r\nhello\r\n" + LAST,
        "size tab": b"5\t\r\nhello\r\n" + LAST,
        "size leading space": b" 5\r\nhello\r\n" + LAST,
        "size quoted": b"\"5\"\r\nhello\r\n" + LAST,
        "size decimal point": b"5.0\r\nhello\r\n" + LAST,
        "size underscore": b"1_0\r\n0123456789abcdef\r\n" + LAST,
        "size letter": b"5g\r\nhello\r\n" + LAST,
        "size NUL": b"5\x00\r\nhello\r\n" + LAST,
        "size of 2^60": b"1000000000000000\r\nhello\r\n" + LAST,
        "size of 2^64 and 5": b"10000000000000005\r\nhello\r\n" + LAST,
        "size that wraps": b"fffffffffffffffb\r\nhello\r\n" + LAST,
        "line too long": b"0" * 600 + b"5\r\nhello\r\n" + LAST,
        "longer than its size": b"5\r\nhelloX\r\n" + LAST,
        "shorter than its size": b"6\r\nhello\r\n" + LAST,
        "bare LF": b"5\nhello\r\n" + LAST,
        "bare CR": b"5\rhello\r\n" + LAST,
        "LF after data": b"5\r\nhello\n" + LAST,
        "CR after data": b"5\r\nhello\r" + LAST,
        "LF CR after data": b"5\r\nhello\n\r" + LAST,
        "two CRLF after data": b"5\r\nhello\r\n\r\n" + LAST,
        "last with LF": b"5\r\nhello\r\n0\n\n",
        "last cut by LF": b"5\r\nhello\r\n0\r\n\nX: y\r\n\r\n",
        "extension bare CR": b"5;a\rb\r\nhello\r\n" + LAST,
        "extension bare LF": b"5;a\nb\r\nhello\r\n" + LAST,
        "extension NUL": b"5;a\x00\r\nhello\r\n" + LAST,
        "extension too long": b"5;" + b"a" * 600 + b"\r\nhello\r\n" + LAST,
        "extensions too long": b"1;" + b"\r\nx\r\n1;".join([b"a" * 500] * 40) + b"\r\nx\r\n" + LAST,
        "extension without semicolon": b"5 a=b\r\nhello\r\n" + LAST,
        "trailer is none": b"0\r\nX : y\r\n\r\n",
        "trailer folded": b"0\r\nX: y\r\n z\r\n\r\n",
        "trailer with NUL": b"0\r\nX: \x00\r\n\r\n",
        "trailer with bare LF": b"0\r\nX: y\nZ: z\r\n\r\n",
        "trailers too long": b"0\r\n" + b"X: " + b"a" * 9000 + b"\r\n\r\n",
        "trailers too many": b"0\r\n" + b"X: a\r\n" * 120 + b"\r\n",
    }.items()
}  # fmt: skip

FIELDS = {
    "bare LF line ends": b"GET /v2/payments/a HTTP/1.1\nHost: g\n\n",
    "one bare LF": b"GET /v2/payments/a HTTP/1.1\r\nHost: g\nX: y\r\n\r\n",
    "one bare CR": b"GET /v2/payments/a HTTP/1.1\r\nHost: g\rX: y\r\n\r\n",
    "CR CR LF": G + b"X: y\r\r\n\r\n",
    "LF before the empty line": G + b"\n\r\n",
    "bare CR at the end": G + b"X: y\r\n\r\r\n\r\n",
    "folded field": G + b"X: a\r\n b\r\n\r\n",
    "folded by a tab": G + b"X: a\r\n\tb\r\n\r\n",
    "folded first field": b"GET /v2/payments/a HTTP/1.1\r\n Host: g\r\n\r\n",
    "folded into nothing": G + b"X: a\r\n \r\n\r\n",
    "no colon": G + b"X\r\n\r\n",
    "empty name": G + b": a\r\n\r\n",
    "only a colon": G + b":\r\n\r\n",
    "name not ASCII": G + b"X\xe9: a\r\n\r\n",
    **{f"name with {chr(n)!r}": G + b"X%cY: a\r\n\r\n" % n for n in b" \"(),/;<=>?@[\\]{}\t"},
    **{f"name with {n:#04x}": G + b"X%cY: a\r\n\r\n" % n for n in _CONTROLS},
    **{f"name before {n:#04x}": G + b"X%c: a\r\n\r\n" % n for n in (*b" \t", *_CONTROLS[::8])},
    **{f"value with {n:#04x}": G + b"X: a%cb\r\n\r\n" % n for n in _CONTROLS},
    "too many fields": G + b"".join(b"X-%d: y\r\n" % i for i in range(120)) + b"\r\n",
    "head too long": G + b"X: " + b"a" * 40000 + b"\r\n\r\n",
    "head too long, many lines": G + b"".join(b"X-%d: %b\r\n" % (i, b"a" * 900) for i in range(60)) + b"\r\n",
}  # fmt: skip

HOSTS = {
    "no Host": b"GET /v2/payments/a HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /v2/payments/a HTTP/1.1\r\nHost: g\r\nHost: h\r\n\r\n",
    "two equal Hosts": G + b"Host: g\r\n\r\n",
    "Host after a space": b"GET /v2/payments/a HTTP/1.1\r\n Host: g\r\n\r\n",
    "Host space colon": b"GET /v2/payments/a HTTP/1.1\r\nHost : g\r\n\r\n",
    "Host folded": b"GET /v2/payments/a HTTP/1.1\r\nHost:\r\n g\r\n\r\n",
    **{
        f"Host {value!r}": b"GET /v2/payments/a HTTP/1.1\r\nHost: %b\r\n\r\n" % value
        for value in (
            b"", b"g/x", b"u@g", b"u:p@g", b"g, h", b"g h", b"g\th", b"g:8x", b"g:80:80", b"g:-1",
            b"[::1", b"::1]", b"[::1]x", b"g?x", b"g#x", b"g\\h", b"http://g", b"\"g\"", b"<g>", b"g\x00", b"g\xff",
            b"{g}", b"g|h", b"g^h", b"[v1.g", b"@",
        )
    },
    "absolute against Host": b"GET http://h/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "absolute against the port": b"GET http://g:81/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "absolute without Host": b"GET http://g/v2/payments/a HTTP/1.1\r\n\r\n",
    "absolute with two Hosts": b"GET http://g/v2/payments/a HTTP/1.1\r\nHost: g\r\nHost: g\r\n\r\n",
    "absolute with user": b"GET http://u@g/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "absolute without a name": b"GET http:///v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "one slash": b"GET http:/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "other scheme": b"GET ftp://g/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
    "a file": b"GET file:///etc/passwd HTTP/1.1\r\nHost: g\r\n\r\n",
    "authority form": b"GET g:80 HTTP/1.1\r\nHost: g\r\n\r\n",
    "asterisk with GET": b"GET * HTTP/1.1\r\nHost: g\r\n\r\n",
    "asterisk with POST": b"POST * HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n",
    "asterisk and more": b"OPTIONS *x HTTP/1.1\r\nHost: g\r\n\r\n",
    "asterisk without Host": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "CONNECT": b"CONNECT g:443 HTTP/1.1\r\nHost: g:443\r\n\r\n",
    "CONNECT to a path": b"CONNECT /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n",
}  # fmt: skip

STARTS = {
    f"start {name}": line + b"\r\nHost: g\r\n\r\n"
    for name, line in {
        "no slash": b"GET v2/payments/a HTTP/1.1",
        "fragment": b"GET /v2/payments/a#b HTTP/1.1",
        "lower case": b"GET /v2/payments/a http/1.1",
        "1.10": b"GET /v2/payments/a HTTP/1.10",
        "01.1": b"GET /v2/payments/a HTTP/01.1",
        "2.0": b"GET /v2/payments/a HTTP/2.0",
        "2": b"GET /v2/payments/a HTTP/2",
        "0.9": b"GET /v2/payments/a HTTP/0.9",
        "1": b"GET /v2/payments/a HTTP/1",
        "1.": b"GET /v2/payments/a HTTP/1.",
        "1,1": b"GET /v2/payments/a HTTP/1,1",
        "1.1x": b"GET /v2/payments/a HTTP/1.1x",
        "1. 1": b"GET /v2/payments/a HTTP/1. 1",
        "HTTPS": b"GET /v2/payments/a HTTPS/1.1",
        "ICY": b"GET /v2/payments/a ICY/1.1",
        "no version's name": b"GET /v2/payments/a /1.1",
        "no target": b"GET HTTP/1.1",
        "two targets": b"GET /v2/payments/a /v2/payments/b HTTP/1.1",
        "two spaces": b"GET  /v2/payments/a HTTP/1.1",
        "two spaces later": b"GET /v2/payments/a  HTTP/1.1",
        "tab": b"GET\t/v2/payments/a HTTP/1.1",
        "tab later": b"GET /v2/payments/a\tHTTP/1.1",
        "vertical tab": b"GET\x0b/v2/payments/a HTTP/1.1",
        "space at end": b"GET /v2/payments/a HTTP/1.1 ",
        "space at start": b" GET /v2/payments/a HTTP/1.1",
        "CR at start": b"\rGET /v2/payments/a HTTP/1.1",
        "LF at start": b"\nGET /v2/payments/a HTTP/1.1",
        "CR at end": b"GET /v2/payments/a HTTP/1.1\r",
        "NUL in target": b"GET /v2/payments/\x00 HTTP/1.1",
        "DEL in target": b"GET /v2/payments/\x7f HTTP/1.1",
        "control in target": b"GET /v2/payments/\x01 HTTP/1.1",
        "tab in target": b"GET /v2/payments/\t HTTP/1.1",
        "space in target": b"GET /v2/payments/a b HTTP/1.1",
        "not ASCII": b"GET /v2/payments/\xe9 HTTP/1.1",
        "UTF-8": "GET /v2/payments/é HTTP/1.1".encode(),
        "no method": b" /v2/payments/a HTTP/1.1",
        "method with colon": b"GE:T /v2/payments/a HTTP/1.1",
        "method in brackets": b"<GET> /v2/payments/a HTTP/1.1",
        "method with NUL": b"GE\x00T /v2/payments/a HTTP/1.1",
        "method not ASCII": b"G\xcbT /v2/payments/a HTTP/1.1",
        "a field": b"X: y",
        "empty": b" ",
        "target too long": b"GET /v2/payments/" + b"a" * 9000 + b" HTTP/1.1",
        "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        "SOCKS": b"\x05\x01\x00",
        "a response": b"HTTP/1.1 200 OK",
    }.items()
} | {"HTTP/0.9": b"GET /v2/payments/a\r\n\r\n", "HTTP/0.9, no end": b"GET /v2/payments/a\r\n"}

CONNECTIONS = {
    **{
        f"Connection: {value.decode()}": P + b"Connection: " + value + b"\r\n" + CL + b"\r\nhello"
        for value in (
            b"host", b"Content-Length", b"transfer-encoding", b"X-Forwarded-For", b"close, x-forwarded-for",
            b"x-forwarded-host,close", b"X-Forwarded-Proto", b"x-forwarded-anything", b"forwarded", b"FORWARDED",
            b"x-real-ip", b"true-client-ip", b"x-client-ip", b"authorization", b"keep-alive , Authorization",
            b"proxy-authorization", b"via", b"close,\thost",
        )
    },
    "Connection, the second": G + b"Connection: close\r\nConnection: host\r\n\r\n",
    "Max-Forwards odd": b"OPTIONS * HTTP/1.1\r\nHost: g\r\nMax-Forwards: 1x\r\n\r\n",
    "Max-Forwards twice": b"TRACE /v2/payments/a HTTP/1.1\r\nHost: g\r\nMax-Forwards: 1\r\nMax-Forwards: 2\r\n\r\n",
}  # fmt: skip

BY_KIND = {
    "lengths": LENGTHS,
    "codings": CODINGS,
    "chunks": CHUNKS,
    "fields": FIELDS,
    "hosts": HOSTS,
    "start lines": STARTS,
    "connection": CONNECTIONS,
}

REFUSED = {name: payload for kind in BY_KIND.values() for name, payload in kind.items()}

_CHUNKED = b"5\r\nhello\r\n" + LAST

PASSED: dict[str, tuple[bytes, bytes]] = {
    "plain": (G + b"\r\n", b""),
    "empty line first": (b"\r\n" + G + b"\r\n", b""),
    "empty lines first": (b"\r\n\r\n\r\n" + G + b"\r\n", b""),
    "no field but Host": (b"DELETE /v2/payments/a HTTP/1.1\r\nhOsT:g\r\n\r\n", b""),
    "absolute form": (b"GET http://g/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n", b""),
    "absolute form, other case": (b"GET HTTP://G/v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n", b""),
    "absolute form in 1.0": (b"GET http://g/v2/payments/a HTTP/1.0\r\n\r\n", b""),
    "1.0 without Host": (b"GET /v2/payments/a HTTP/1.0\r\n\r\n", b""),
    "1.0 with a body": (P.replace(b"1.1", b"1.0") + CL + b"\r\nhello", b"hello"),
    "minor version to come": (b"GET /v2/payments/a HTTP/1.3\r\nHost: g\r\n\r\n", b""),
    "tab in value": (G + b"X: a\tb\r\n\r\n", b""),
    "latin-1 in value": (G + b"X: caf\xe9\r\n\r\n", b""),
    "UTF-8 in value": (G + "X: café ☕\r\n\r\n".encode(), b""),
    "empty value": (G + b"X:\r\n\r\n", b""),
    "space around value": (G + b"X: \t a \t\r\n\r\n", b""),
    "colons in value": (G + b"X: a: b:c\r\n\r\n", b""),
    "every character of a token": (G + b"!#$%&'*+-.^`|~09aZ: a\r\n\r\n", b""),
    "many fields": (G + b"".join(b"X-%d: y\r\n" % i for i in range(90)) + b"\r\n", b""),
    "a long field": (G + b"X: " + b"a" * 7000 + b"\r\n\r\n", b""),
    "repeated fields": (G + b"Accept: a\r\nAccept: b\r\nCookie: a=b\r\nCookie: c=d\r\n\r\n", b""),
    "Host with a port": (b"GET /v2/payments/a HTTP/1.1\r\nHost: g:8000\r\n\r\n", b""),
    "Host with an empty port": (b"GET /v2/payments/a HTTP/1.1\r\nHost: g:\r\n\r\n", b""),
    "Host with _": (b"GET /v2/payments/a HTTP/1.1\r\nHost: a_b.c\r\n\r\n", b""),
    "IPv6 Host": (b"GET /v2/payments/a HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", b""),
    "CL": (P + CL + b"\r\nhello", b"hello"),
    "CL after white space": (P + b"Content-Length: \t 5 \r\n\r\nhello", b"hello"),
    "CL with zeros": (P + b"Content-Length: 00000000000000000005\r\n\r\nhello", b"hello"),
    "CL 0": (P + b"Content-Length: 0\r\n\r\n", b""),
    "no CL": (P + b"\r\n", b""),
    "GET with body": (G + CL + b"\r\nhello", b"hello"),
    "body like a request": (P + b"Content-Length: 36\r\n\r\n" + G[:36], G[:36]),
    "chunked": (C + _CHUNKED, b"hello"),
    "Chunked": (P + b"Transfer-Encoding: CHUNKED\r\n\r\n" + _CHUNKED, b"hello"),
    "chunked after white space": (P + b"Transfer-Encoding:\tchunked \r\n\r\n" + _CHUNKED, b"hello"),
    "chunked GET": (G + TE + b"\r\n" + _CHUNKED, b"hello"),
    "nothing in chunks": (C + LAST, b""),
    "upper case in sizes": (C + b"A\r\n0123456789\r\n" + LAST, b"0123456789"),
    "zeros before sizes": (C + b"00000000000000000005\r\nhello\r\n000\r\n\r\n", b"hello"),
    "chunk extension": (C + b'5;a="b";c\r\nhello\r\n0 ;x\r\n\r\n', b"hello"),
    "chunk extension, tab": (C + b"5\t;\ta = b\r\nhello\r\n" + LAST, b"hello"),
    "trailers": (
        C + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 3\r\nHost: evil\r\nAuthorization: x\r\n"
        b"Transfer-Encoding: chunked\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n",
        b"hello",
    ),
    "TE: trailers": (G + b"TE: trailers, gzip\r\nConnection: TE\r\n\r\n", b""),
    "TE that Connection does not name": (G + b"TE: trailers\r\n\r\n", b""),
    "Expect odd": (P + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nhi", b"hi"),
    "Expect without a body": (G + b"Expect: 100-continue\r\n\r\n", b""),
    "Expect with a body": (P + b"Expect: 100-Continue\r\n" + CL + b"\r\nhello", b"hello"),
    "Expect in 1.0": (P.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\n" + CL + b"\r\nhello", b"hello"),
    "Expect twice": (P + b"Expect: 100-continue\r\nExpect: cow\r\n" + CL + b"\r\nhello", b"hello"),
    "Max-Forwards of a GET": (G + b"Max-Forwards: 1x\r\n\r\n", b""),
    "Connection names a plain field": (G + b"Connection: x-hop\r\nX-Hop: 1\r\n\r\n", b""),
    "Connection names what it has not": (G + b"Connection: x-other, , close\r\n\r\n", b""),
    "Connection is odd": (G + b"Connection: a b, \"c\", ;\r\n\r\n", b""),
    "Connection names X-Request-Id": (G + b"Connection: x-request-id\r\nX-Request-Id: x\r\n\r\n", b""),
    "underscore twins": (
        P + b"Content_Length: 3\r\nX_Forwarded_For: 1.2.3.4\r\nTransfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\nhello",
        b"hello",
    ),
    "Upgrade h2c": (
        G + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n\r\n",
        b"",
    ),
    "Upgrade that Connection does not name": (G + b"Upgrade: websocket\r\n\r\n", b""),
    "Upgrade with a body": (P + b"Connection: upgrade\r\nUpgrade: websocket\r\n" + CL + b"\r\nhello", b"hello"),
    "Keep-Alive": (G + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n", b""),
    "Proxy fields": (G + b"Proxy-Connection: keep-alive\r\nProxy-Authorization: x\r\n\r\n", b""),
    "forged forwarding": (G + b"X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n\r\n", b""),
    "OPTIONS": (b"OPTIONS /v2/payments/a HTTP/1.1\r\nHost: g\r\n\r\n", b""),
}  # fmt: skip
