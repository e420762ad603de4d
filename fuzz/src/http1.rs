//! HTTP/1.1 answers, in whatever pieces they arrive.

use akv_pkcs11::net::{
    MAX_BODY, NetError,
    http1::{Answer, Source, read_answer},
};
use zeroize::Zeroizing;

use crate::Seed;

/// Bytes that arrive in pieces of this size, and then the end of the connection.
struct Pieces<'a> {
    rest: &'a [u8],
    size: usize,
}

impl Source for Pieces<'_> {
    fn more(&mut self, into: &mut Zeroizing<Vec<u8>>) -> Result<bool, NetError> {
        let (now, later) = self.rest.split_at(self.size.min(self.rest.len()));
        into.extend_from_slice(now);
        self.rest = later;
        Ok(!now.is_empty())
    }
}

/// The first byte is the size of a piece and the method; the rest is what the connection brings.
pub fn run(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else {
        return;
    };
    let method = if first & 1 == 0 { reqwest::Method::POST } else { reqwest::Method::HEAD };
    let size = usize::from(first / 2) + 1;
    let read =
        |size| read_answer(&mut Pieces { rest: bytes, size }, &mut Zeroizing::default(), &method);
    let (whole, pieces) = (read(bytes.len().max(1)), read(size));
    if let Ok(answer) = &whole {
        assert!(answer.response.body.len() <= MAX_BODY.min(bytes.len()));
        let mut each = 0;
        answer.response.headers.each(|name, value| {
            each += 1;
            assert!(!value.contains(['\r', '\n']), "{name} has two lines");
            assert!(answer.response.header(name).is_some(), "{name} is found");
        });
        assert!(each <= bytes.len());
    }
    match (whole, pieces) {
        (Ok(whole), Ok(pieces)) => {
            assert_eq!(plain(&whole), plain(&pieces), "in pieces of {size}");
            // Less may have arrived when the answer was whole; never more.
            assert!(!whole.reusable || pieces.reusable, "in pieces of {size}");
        }
        (Err(_), Err(_)) => {}
        (whole, pieces) => {
            panic!("whole: {:?}, in pieces of {size}: {:?}", whole.is_ok(), pieces.is_ok())
        }
    }
}

fn plain(answer: &Answer) -> (u16, &[u8]) {
    (answer.response.status, &answer.response.body)
}

/// An answer of each framing, whole and broken.
pub fn seeds() -> Vec<Seed> {
    let ok = |headers: &str, rest: &str| format!("\x0aHTTP/1.1 200 OK\r\n{headers}\r\n\r\n{rest}");
    let chunked = "Transfer-Encoding: chunked";
    [
        ("length", ok("Content-Length: 4", "body")),
        ("length-twice", ok("Content-Length: 4, 4\r\nContent-Length: 4", "bodyX")),
        ("lengths", ok("Content-Length: 4\r\nContent-Length: 5", "bodyb")),
        ("short", ok("Content-Length: 5", "body")),
        ("huge", ok("Content-Length: 99999999999", "")),
        ("until-end", ok("Connection: close", "all of it")),
        ("chunks", ok(chunked, "4\r\nbody\r\n4;x=y\r\n abc\r\n0\r\nTrailer: x\r\n\r\n")),
        ("huge-chunk", ok(chunked, "ffffffffffffffff\r\n")),
        ("long-chunk", ok(chunked, "3\r\nbody\r\n0\r\n\r\n")),
        ("gzip", ok("Transfer-Encoding: gzip", "x")),
        ("http-1.0", "\x00HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\nx".to_owned()),
        ("continue", "\x04HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n".to_owned()),
        ("head", "\x05HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n".to_owned()),
        ("html", "\x08<html>".to_owned()),
    ]
    .map(|(name, input)| Seed::new(name, input))
    .into()
}
