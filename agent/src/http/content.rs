//! The body of an answer.

use std::io::Cursor;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::pace::Sending;

/// What is sent once and nobody shares.
type Octets = Cursor<Vec<u8>>;

/// The body of an answer: whole, or part by part as it is made.
#[derive(Debug)]
pub(crate) enum Content {
    /// What most answers are.
    Whole(Full<Octets>),
    /// One that may be long; it is broken off when its maker goes without [`Part::End`].
    Parts(mpsc::Receiver<Part>, Option<Sending>),
    /// All parts are sent.
    Ended,
}

/// A part of a long answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// Octets.
    Data(String),
    /// That was all.
    End,
}

/// The maker of a long answer is gone before its end.
#[derive(Debug, thiserror::Error)]
#[error("the answer is not complete")]
pub(crate) struct Incomplete;

impl Default for Content {
    fn default() -> Self {
        Self::Whole(Full::default())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Whole(Full::new(Cursor::new(text.into_bytes())))
    }
}

impl Body for Content {
    type Data = Octets;
    type Error = Incomplete;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Octets>, Incomplete>>> {
        let (outcome, ended) = match &mut *self {
            Self::Whole(body) => {
                return Pin::new(body)
                    .poll_frame(context)
                    .map(|frame| frame.map(|frame| frame.map_err(|never| match never {})));
            }
            Self::Ended => return Poll::Ready(None),
            Self::Parts(parts, _) => match std::task::ready!(parts.poll_recv(context)) {
                Some(Part::Data(data)) => (Some(Ok(Frame::data(Cursor::new(data.into_bytes())))), false),
                Some(Part::End) => (None, true),
                // Without its end, whoever reads it shall not take it for the whole.
                None => (Some(Err(Incomplete)), true),
            },
        };
        if ended {
            *self = Self::Ended;
        }
        Poll::Ready(outcome)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Parts(..) => false,
            Self::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Parts(..) => SizeHint::default(),
            Self::Ended => SizeHint::with_exact(0),
        }
    }
}
