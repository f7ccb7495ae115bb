//! WASI's streams for guests that are called on the stack of their worker: nothing there can wait. Nothing has to, for the streams of a
//! guest lead nowhere and are always ready; whoever can ask for more, a sleep for one, is called on a stack of its own (`guest.rs`).

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::WasiView as _;
use wasmtime_wasi::p2::bindings::io::{poll as awaited_poll, streams as awaited};
use wasmtime_wasi::p2::bindings::sync::io::{poll, streams};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, DynPollable, StreamError, StreamResult};

use crate::pool::GuestState;

/// Links all of WASI so that no function of it waits.
pub(crate) fn link(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_sync(linker)?;
    // Those would block the thread, which a worker must not.
    linker.allow_shadowing(true);
    poll::add_to_linker::<_, Streams>(linker, |state| Prompt(state.ctx().table))?;
    streams::add_to_linker::<_, Streams>(linker, |state| Prompt(state.ctx().table))?;
    linker.allow_shadowing(false);
    Ok(())
}

struct Streams;

impl HasData for Streams {
    type Data<'a> = Prompt<'a>;
}

/// The streams and pollables of an instance.
struct Prompt<'a>(&'a mut ResourceTable);

/// What is ready at once.
fn now<T>(future: impl Future<Output = T>) -> wasmtime::Result<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(wasmtime::format_err!("it waits for a stream that is not ready")),
    }
}

fn ready<T>(future: impl Future<Output = StreamResult<T>>) -> StreamResult<T> {
    now(future).map_err(StreamError::Trap).flatten()
}

type Input = Resource<DynInputStream>;
type Output = Resource<DynOutputStream>;

impl poll::Host for Prompt<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        now(awaited_poll::Host::poll(self.0, pollables)).flatten()
    }
}

impl poll::HostPollable for Prompt<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<bool> {
        now(awaited_poll::HostPollable::ready(self.0, pollable)).flatten()
    }
    fn block(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        now(awaited_poll::HostPollable::block(self.0, pollable)).flatten()
    }
    fn drop(&mut self, pollable: Resource<DynPollable>) -> wasmtime::Result<()> {
        awaited_poll::HostPollable::drop(self.0, pollable)
    }
}

impl streams::Host for Prompt<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.0, error)
    }
}

impl streams::HostOutputStream for Prompt<'_> {
    fn drop(&mut self, stream: Output) -> wasmtime::Result<()> {
        now(awaited::HostOutputStream::drop(self.0, stream)).flatten()
    }
    fn check_write(&mut self, stream: Output) -> StreamResult<u64> {
        awaited::HostOutputStream::check_write(self.0, stream)
    }
    fn write(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        awaited::HostOutputStream::write(self.0, stream, bytes)
    }
    fn blocking_write_and_flush(&mut self, stream: Output, bytes: Vec<u8>) -> StreamResult<()> {
        ready(awaited::HostOutputStream::blocking_write_and_flush(self.0, stream, bytes))
    }
    fn blocking_write_zeroes_and_flush(&mut self, stream: Output, length: u64) -> StreamResult<()> {
        ready(awaited::HostOutputStream::blocking_write_zeroes_and_flush(self.0, stream, length))
    }
    fn subscribe(&mut self, stream: Output) -> wasmtime::Result<Resource<DynPollable>> {
        awaited::HostOutputStream::subscribe(self.0, stream)
    }
    fn write_zeroes(&mut self, stream: Output, length: u64) -> StreamResult<()> {
        awaited::HostOutputStream::write_zeroes(self.0, stream, length)
    }
    fn flush(&mut self, stream: Output) -> StreamResult<()> {
        awaited::HostOutputStream::flush(self.0, stream)
    }
    fn blocking_flush(&mut self, stream: Output) -> StreamResult<()> {
        ready(awaited::HostOutputStream::blocking_flush(self.0, stream))
    }
    fn splice(&mut self, to: Output, from: Input, length: u64) -> StreamResult<u64> {
        awaited::HostOutputStream::splice(self.0, to, from, length)
    }
    fn blocking_splice(&mut self, to: Output, from: Input, length: u64) -> StreamResult<u64> {
        ready(awaited::HostOutputStream::blocking_splice(self.0, to, from, length))
    }
}

impl streams::HostInputStream for Prompt<'_> {
    fn drop(&mut self, stream: Input) -> wasmtime::Result<()> {
        now(awaited::HostInputStream::drop(self.0, stream)).flatten()
    }
    fn read(&mut self, stream: Input, length: u64) -> StreamResult<Vec<u8>> {
        awaited::HostInputStream::read(self.0, stream, length)
    }
    fn blocking_read(&mut self, stream: Input, length: u64) -> StreamResult<Vec<u8>> {
        ready(awaited::HostInputStream::blocking_read(self.0, stream, length))
    }
    fn skip(&mut self, stream: Input, length: u64) -> StreamResult<u64> {
        awaited::HostInputStream::skip(self.0, stream, length)
    }
    fn blocking_skip(&mut self, stream: Input, length: u64) -> StreamResult<u64> {
        ready(awaited::HostInputStream::blocking_skip(self.0, stream, length))
    }
    fn subscribe(&mut self, stream: Input) -> wasmtime::Result<Resource<DynPollable>> {
        awaited::HostInputStream::subscribe(self.0, stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_ready_is_an_error() {
        assert_eq!(now(std::future::ready(7)).unwrap(), 7);
        let error = now(std::future::pending::<()>()).unwrap_err();
        assert!(error.to_string().contains("waits"), "{error}");
        assert!(matches!(ready(std::future::pending::<StreamResult<()>>()), Err(StreamError::Trap(_))));
    }
}
