#![no_main]

use bytes::{Bytes, BytesMut};
use http::Method;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use libfuzzer_sys::fuzz_target;
use weir_fuzz::http1::body::{Decoder, Framing, Piece};
use weir_fuzz::http1::response::{self, Head};
use weir_fuzz::pieces::pieces;
use weir_fuzz::seeds;
use weir_fuzz::wire::{Wire, run};

/// The final head, interim ones skipped, and its body when that is whole.
#[derive(Debug)]
enum Own {
    Partial,
    Bad,
    Answer { head: Box<Head>, body: Option<Vec<u8>> },
}

/// As `http1::client` reads an answer.
fn own(pieces: &[&[u8]], method: &Method) -> Own {
    let (mut input, mut answer, mut data) = (BytesMut::new(), None::<(Box<Head>, Decoder)>, Vec::new());
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let Some((_, decoder)) = &mut answer else {
                match response::take(&mut input, method) {
                    Ok(Some(Head { head, .. })) if head.status.is_informational() && head.status != 101 => {}
                    Ok(Some(head)) => {
                        let decoder = if head.head.status == 101 { Decoder::Done } else { Decoder::new(head.framing) };
                        answer = Some((Box::new(head), decoder));
                    }
                    Ok(None) => break,
                    Err(_) => return Own::Bad,
                }
                continue;
            };
            if decoder.is_done() {
                break;
            }
            match decoder.take(&mut input) {
                Ok(Piece::Data(bytes)) => data.extend_from_slice(&bytes),
                Ok(Piece::Trailers(_) | Piece::End | Piece::More) => break,
                Err(_) => return Own::Bad,
            }
        }
    }
    match answer {
        None => Own::Partial,
        Some((head, mut decoder)) => {
            let body = (decoder.is_done() || decoder.end()).then_some(data);
            Own::Answer { head, body }
        }
    }
}

/// Status and body as hyper's client reads them.
fn hyper_reads(bytes: &[u8], method: &Method) -> Option<(u16, Option<Vec<u8>>)> {
    run(async {
        let io = TokioIo::new(Wire::after_a_request(&[bytes]));
        let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await.ok()?;
        tokio::task::spawn_local(driver);
        let request = http::Request::builder().method(method).uri("/").header("host", "a").body(Empty::<Bytes>::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok().map(|body| body.to_bytes().to_vec());
        Some((status, body))
    })
}

fuzz_target!(init: seeds::write(seeds::responses()), |input: &[u8]| {
    let Some((bytes, pieces)) = pieces(input) else { return };
    let method = if input[0] & 0x80 == 0 { Method::GET } else { Method::HEAD };
    let whole = own(&[bytes], &method);
    match (&whole, own(&pieces, &method)) {
        (Own::Partial, Own::Partial) | (Own::Bad, Own::Bad) => {}
        (Own::Answer { head, body }, Own::Answer { head: other, body: other_body }) => {
            assert_eq!((head.head.status, &head.head.headers), (other.head.status, &other.head.headers));
            assert_eq!((head.framing, head.keep), (other.framing, other.keep));
            assert_eq!(body, &other_body);
        }
        (one, other) => panic!("{one:?} {other:?}"),
    }
    let Own::Answer { head, body } = whole else { return };
    let count = |name: &str| head.head.headers.get_all(name).count();
    assert!(count("content-length") + count("transfer-encoding") <= 1 || head.framing == Framing::Length(0));
    // A switch of protocols ends what both have in common.
    let Some((status, theirs)) = hyper_reads(bytes, &method).filter(|(status, _)| *status != 101) else { return };
    assert_eq!(head.head.status.as_u16(), status);
    if let (Some(body), Some(theirs)) = (body, theirs) {
        assert_eq!(body, theirs, "{}", bytes.escape_ascii());
    }
});
