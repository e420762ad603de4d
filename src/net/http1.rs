//! HTTP/1.1 as a client speaks it: a request's bytes, and an answer read from whatever brings its
//! bytes (RFC 9112).

use std::{io::Write as _, mem::MaybeUninit};

use reqwest::{
    Method,
    header::{CONNECTION, CONTENT_LENGTH, HeaderName, TRANSFER_ENCODING},
};
use zeroize::Zeroizing;

use super::{
    NetError, Request, Response,
    message::{Body, Headers, MAX_BODY},
};

/// An answer's status line and headers may be this long, bytes, and have this many headers.
const MAX_HEAD: usize = 64 << 10;
const MAX_HEADERS: usize = 100;
/// Interim answers (100 and its like) before an answer. Nobody here asks for any.
const MAX_INTERIM: usize = 8;

/// Where an answer's bytes come from.
pub trait Source {
    /// Appends at least one byte; false at the end of the connection.
    ///
    /// # Errors
    /// [`NetError::Timeout`], [`NetError::Lost`].
    fn more(&mut self, into: &mut Zeroizing<Vec<u8>>) -> Result<bool, NetError>;
}

/// An answer, and whether another request may follow on its connection.
pub struct Answer {
    /// Status, headers and the whole body.
    pub response: Response,
    /// Nothing of the answer is left over on the connection, and neither side closes it.
    pub reusable: bool,
}

/// Writes a request into `out`, which is empty. Headers are as the request has them; Host and
/// Content-Length are added.
pub(super) fn write_request(out: &mut Zeroizing<Vec<u8>>, request: &Request) {
    let body = request.body.as_deref().unwrap_or_default();
    // The body may be secret: there must be no smaller buffer that it was copied from.
    let headers: usize =
        request.headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let host = request.origin.named().as_bytes();
    out.reserve_exact(request.target.len() + host.len() + headers + body.len() + 128);
    let mut line = |parts: &[&[u8]]| parts.iter().for_each(|part| out.extend_from_slice(part));
    let method = request.method.as_str().as_bytes();
    line(&[method, b" ", request.target.as_bytes(), b" HTTP/1.1\r\nhost: ", host, b"\r\n"]);
    for (name, value) in &request.headers {
        line(&[name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"]);
    }
    // A POST without a body says so; the service answers 411 otherwise.
    if !body.is_empty() || !matches!(request.method, Method::GET | Method::DELETE | Method::HEAD) {
        // Writing to a vector cannot fail.
        let _ = write!(out, "content-length: {}\r\n", body.len());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// Reads one answer to its end, by way of `bytes`, which is empty and does not stay so.
///
/// # Errors
/// Those of the source; [`NetError::TooLong`]; [`NetError::Lost`] for what is no HTTP/1.1 answer,
/// or ends before it is whole.
pub fn read_answer(
    source: &mut impl Source,
    bytes: &mut Zeroizing<Vec<u8>>,
    method: &Method,
) -> Result<Answer, NetError> {
    let mut interim = 0;
    let head = loop {
        match Head::parse(bytes, method)? {
            // 100 (Continue) and its like are no answers.
            Some(head) if (100..200).contains(&head.status) => {
                interim += 1;
                if interim > MAX_INTERIM {
                    return Err(broken("interim answers without end"));
                }
                bytes.drain(..head.length);
            }
            Some(head) => break head,
            None if bytes.len() > MAX_HEAD => return Err(broken("a head without end")),
            None => {
                if !source.more(bytes)? {
                    return Err(broken("closed before an answer"));
                }
            }
        }
    };
    let raw = bytes[..head.length].into();
    let mut rest = Rest { source, bytes, at: head.length };
    let body = match head.framing {
        Framing::Length(length) => rest.exactly(length)?,
        Framing::Chunks => rest.chunks()?,
        Framing::UntilEnd => rest.until_end()?,
    };
    // Bytes beyond the answer belong to nothing that was asked.
    let clean = rest.at == rest.bytes.len() && !matches!(head.framing, Framing::UntilEnd);
    let reusable = clean && head.persistent;
    let response = Response { status: head.status, headers: Headers::Head(raw), body };
    Ok(Answer { response, reusable })
}

fn broken(what: &str) -> NetError {
    NetError::Lost(what.to_owned())
}

/// The headers of a whole and valid head that are visible ASCII.
pub(super) fn each_header<'a>(head: &'a [u8], mut with: impl FnMut(&'a str, &'a str)) {
    let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    // A head that was refused has no headers.
    let parser = httparse::ParserConfig::default();
    if parser.parse_response_with_uninit_headers(&mut parsed, head, &mut fields).is_ok() {
        for field in parsed.headers.iter() {
            if let Ok(value) = std::str::from_utf8(field.value) {
                with(field.name, value);
            }
        }
    }
}

/// What of a head decides how the rest is read.
struct Head {
    status: u16,
    /// Bytes up to the body.
    length: usize,
    persistent: bool,
    framing: Framing,
}

impl Head {
    /// None while it is not whole.
    fn parse(bytes: &[u8], method: &Method) -> Result<Option<Head>, NetError> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let done = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            bytes,
            &mut fields,
        );
        let refused = |error: httparse::Error| broken(&format!("not HTTP: {error}"));
        let httparse::Status::Complete(length) = done.map_err(refused)? else {
            return Ok(None);
        };
        let status = parsed.code.unwrap_or(0);
        let says = |what: &str| {
            tokens(parsed.headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(what))
        };
        let persistent = match parsed.version {
            Some(1) => !says("close"),
            _ => says("keep-alive"),
        };
        let framing = Framing::of(status, parsed.headers, method)?;
        Ok(Some(Head { status, length, persistent, framing }))
    }
}

/// The comma-separated values of all headers of a name.
fn tokens<'a>(
    headers: &'a [httparse::Header<'_>],
    name: HeaderName,
) -> impl Iterator<Item = &'a str> {
    let named = headers.iter().filter(move |field| name.as_str().eq_ignore_ascii_case(field.name));
    let values = named.filter_map(|field| std::str::from_utf8(field.value).ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// How long a body is (RFC 9112, 6.3).
#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunks,
    UntilEnd,
}

impl Framing {
    fn of(
        status: u16,
        headers: &[httparse::Header<'_>],
        method: &Method,
    ) -> Result<Framing, NetError> {
        if *method == Method::HEAD || matches!(status, 100..200 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        if let Some(last) = tokens(headers, TRANSFER_ENCODING).last() {
            return match last.eq_ignore_ascii_case("chunked") {
                true => Ok(Framing::Chunks),
                false => Err(broken("a transfer coding that was not offered")),
            };
        }
        let mut lengths = tokens(headers, CONTENT_LENGTH);
        let Some(length) = lengths.next() else { return Ok(Framing::UntilEnd) };
        let number = length.parse().ok().filter(|_| length.bytes().all(|b| b.is_ascii_digit()));
        match number {
            Some(number) if lengths.all(|other| other == length) => Ok(Framing::Length(number)),
            _ => Err(broken("an answer of unclear length")),
        }
    }
}

/// What follows a head.
struct Rest<'a, S> {
    source: &'a mut S,
    bytes: &'a mut Zeroizing<Vec<u8>>,
    /// What is before it has been read.
    at: usize,
}

impl<S: Source> Rest<'_, S> {
    fn exactly(&mut self, length: usize) -> Result<Zeroizing<Vec<u8>>, NetError> {
        let mut body = Body::with_room(length)?;
        self.copy(length, &mut body)?;
        Ok(body.0)
    }

    fn chunks(&mut self) -> Result<Zeroizing<Vec<u8>>, NetError> {
        let mut body = Body::with_room(0)?;
        loop {
            let size = loop {
                match httparse::parse_chunk_size(&self.bytes[self.at..]) {
                    Ok(httparse::Status::Complete((taken, size))) => {
                        self.at += taken;
                        break usize::try_from(size).unwrap_or(usize::MAX);
                    }
                    Ok(httparse::Status::Partial) if self.bytes.len() - self.at < 1024 => {
                        self.more()?;
                    }
                    _ => return Err(broken("a chunk without a size")),
                }
            };
            if size == 0 {
                return self.trailers().map(|()| body.0);
            }
            self.copy(size, &mut body)?;
            self.line_break()?;
        }
    }

    fn until_end(&mut self) -> Result<Zeroizing<Vec<u8>>, NetError> {
        let mut body = Body::with_room(0)?;
        loop {
            body.push(&self.bytes[self.at..])?;
            self.forget();
            if !self.source.more(self.bytes)? {
                return Ok(body.0);
            }
        }
    }

    fn copy(&mut self, mut length: usize, body: &mut Body) -> Result<(), NetError> {
        if length > MAX_BODY {
            return Err(NetError::TooLong);
        }
        loop {
            let here = length.min(self.bytes.len() - self.at);
            body.push(&self.bytes[self.at..self.at + here])?;
            (self.at, length) = (self.at + here, length - here);
            if length == 0 {
                return Ok(());
            }
            self.more()?;
        }
    }

    fn line_break(&mut self) -> Result<(), NetError> {
        while self.bytes.len() < self.at + 2 {
            self.more()?;
        }
        match self.bytes[self.at..].starts_with(b"\r\n") {
            true => self.at += 2,
            false => return Err(broken("a chunk longer than its size")),
        }
        Ok(())
    }

    /// Lines up to the empty one; nothing of them is of use.
    fn trailers(&mut self) -> Result<(), NetError> {
        let mut skipped = 0;
        loop {
            let line = self.bytes[self.at..].windows(2).position(|two| two == b"\r\n");
            match line {
                Some(0) => {
                    self.at += 2;
                    return Ok(());
                }
                Some(length) => {
                    self.at += length + 2;
                    skipped += length;
                }
                None => self.more()?,
            }
            if skipped.max(self.bytes.len() - self.at) > MAX_HEAD {
                return Err(broken("trailers without end"));
            }
        }
    }

    fn more(&mut self) -> Result<(), NetError> {
        if self.at == self.bytes.len() {
            self.forget();
        }
        match self.source.more(self.bytes)? {
            true => Ok(()),
            false => Err(broken("closed in the middle of an answer")),
        }
    }

    /// Everything that was read is done with.
    fn forget(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;

    use super::*;

    /// Gives its bytes in pieces of this size.
    struct Pieces<'a>(&'a [u8], usize);

    impl Source for Pieces<'_> {
        fn more(&mut self, into: &mut Zeroizing<Vec<u8>>) -> Result<bool, NetError> {
            let (now, later) = self.0.split_at(self.1.min(self.0.len()));
            into.extend_from_slice(now);
            self.0 = later;
            Ok(!now.is_empty())
        }
    }

    fn read(text: &str) -> Result<(u16, Vec<u8>, bool), NetError> {
        let whole = read_by(text, text.len().max(1));
        for piece in 1..8 {
            assert_eq!(read_by(text, piece), whole, "in pieces of {piece}");
        }
        whole
    }

    fn read_by(text: &str, piece: usize) -> Result<(u16, Vec<u8>, bool), NetError> {
        let mut bytes = Zeroizing::default();
        let mut pieces = Pieces(text.as_bytes(), piece);
        let answer = read_answer(&mut pieces, &mut bytes, &Method::POST)?;
        Ok((answer.response.status, answer.response.body.to_vec(), answer.reusable))
    }

    #[test]
    fn a_body_is_as_long_as_the_answer_says() {
        let answer = |head: &str, rest: &str| read(&format!("HTTP/1.1 {head}\r\n\r\n{rest}"));
        let ok = |status, body: &str, reusable| Ok((status, body.as_bytes().to_vec(), reusable));
        assert_eq!(answer("200 OK\r\nContent-Length: 4", "body"), ok(200, "body", true));
        assert_eq!(answer("200 OK\r\nContent-Length: 4, 4", "body"), ok(200, "body", true));
        assert_eq!(answer("204 No Content", ""), ok(204, "", true));
        assert_eq!(answer("200 OK", "all of it"), ok(200, "all of it", false));
        let chunked = "4\r\nbody\r\n3;x=y\r\n abc\r\n".replace("3;", "4;");
        let chunked = format!("{chunked}0\r\nTrailer: x\r\n\r\n");
        let head = "200 OK\r\nTransfer-Encoding: chunked";
        assert_eq!(answer(head, &chunked), ok(200, "body abc", true));
        let continued = "100 Continue\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 0";
        assert_eq!(answer(continued, ""), ok(401, "", true));
        let interim = "103 Early Hints\r\n\r\nHTTP/1.1 ".repeat(MAX_INTERIM);
        assert_eq!(answer(&format!("{interim}204 No"), ""), ok(204, "", true));
    }

    #[test]
    fn connections_that_end_are_not_used_again() {
        for head in ["HTTP/1.0 200 OK", "HTTP/1.1 200 OK\r\nConnection: Close"] {
            let (_, _, reusable) = read(&format!("{head}\r\nContent-Length: 0\r\n\r\n")).unwrap();
            assert!(!reusable, "{head}");
        }
        let more = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 500 never asked for\r\n";
        assert_eq!(read_by(more, more.len()), Ok((200, b"x".to_vec(), false)));
    }

    #[test]
    fn what_is_no_answer_is_lost() {
        let head = |line: &str, rest: &str| format!("HTTP/1.1 200 OK\r\n{line}\r\n\r\n{rest}");
        for text in [
            String::new(),
            "HTTP/1.1 200".into(),
            "<html>".into(),
            head("Content-Length: 5", "body"),
            head("Content-Length: 4\r\nContent-Length: 5", "bodyb"),
            head("Content-Length: -1", ""),
            head("Content-Length: +4", "body"),
            head("Transfer-Encoding: gzip", "body"),
            head("Transfer-Encoding: chunked", "4\r\nbod"),
            head("Transfer-Encoding: chunked", "3\r\nbody\r\n0\r\n\r\n"),
            head("Transfer-Encoding: chunked", "x\r\nbody\r\n0\r\n\r\n"),
            head("Transfer-Encoding: chunked", "4\r\nbody\r\n0\r\n"),
        ] {
            assert!(matches!(read(&text), Err(NetError::Lost(_))), "{text}: {:?}", read(&text));
        }
        let endless = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(2 * MAX_HEAD));
        assert!(matches!(read_by(&endless, 8192), Err(NetError::Lost(_))));
        let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(MAX_INTERIM + 1);
        assert!(matches!(
            read(&(interim + &head("Content-Length: 0", ""))),
            Err(NetError::Lost(_))
        ));
        let huge = head("Content-Length: 99999999999", "");
        assert_eq!(read(&huge), Err(NetError::TooLong));
        let huge = head("Transfer-Encoding: chunked", "ffffffffff\r\n");
        assert_eq!(read(&huge), Err(NetError::TooLong));
    }

    #[test]
    fn a_request_has_what_the_service_wants() {
        let written = |method: Method, url: &str, body: Option<&[u8]>| {
            let mut request = Request::new(method, &Url::parse(url).unwrap());
            if let Some(body) = body {
                request = request.with_body(Zeroizing::new(body.to_vec()));
            }
            let mut out = Zeroizing::default();
            write_request(&mut out, &request);
            String::from_utf8(out.to_vec()).unwrap()
        };
        assert_eq!(
            written(Method::GET, "https://contoso.vault.azure.net/keys?api-version=7.4", None),
            "GET /keys?api-version=7.4 HTTP/1.1\r\nhost: contoso.vault.azure.net\r\n\r\n"
        );
        assert_eq!(
            written(Method::POST, "https://[::1]:8443/keys/a/sign", Some(b"{}")),
            "POST /keys/a/sign HTTP/1.1\r\nhost: [::1]:8443\r\ncontent-length: 2\r\n\r\n{}"
        );
        assert!(written(Method::POST, "https://h/x", None).contains("content-length: 0\r\n"));
    }
}
