//! What the targets share.

use http::{Request, Uri};

/// The request that `text` writes out as HTTP/1.1 does: a method and a target, headers, an empty line, the body.
/// Lines end in `\n`. None where that is no request that HTTP can carry.
#[must_use]
pub fn request(text: &[u8]) -> Option<Request<Vec<u8>>> {
    let end = text.windows(2).position(|pair| pair == b"\n\n").unwrap_or(text.len());
    let (head, body) = text.split_at(end);
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = std::str::from_utf8(lines.next()?).ok()?;
    let (method, target) = line.split_once(' ')?;
    let uri = target.starts_with('/').then(|| Uri::try_from(target).ok())??;
    let mut request = Request::builder().method(method).uri(uri);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        request = request.header(name, value.get(1..)?.trim_ascii());
    }
    request.body(body.get(2..).unwrap_or_default().to_vec()).ok()
}
