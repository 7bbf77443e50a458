//! Why etcd does not do what it was asked.

use std::error::Error;

use tonic::{Code, Status};

/// One sentence that names the member or the field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdError {
    /// The configuration cannot be used.
    #[error("{0}: {1}")]
    Config(&'static str, String),
    /// No member answered within the time there is.
    #[error("no member of etcd answers, the last one asked was {member}: {reason}")]
    Unreachable {
        /// Whom we asked last.
        member: String,
        /// What became of it.
        reason: String,
    },
    /// A member answered with a refusal that another one would repeat.
    #[error("etcd at {member} refuses: {reason}")]
    Refused {
        /// Who said it.
        member: String,
        /// In its words.
        reason: String,
    },
    /// The history that was asked for is gone, or it is not the one that we knew: only reading everything anew helps.
    #[error("etcd has no history from revision {0} on")]
    Compacted(i64),
    /// An answer is larger than is taken at once; ask for less.
    #[error("an answer of etcd is larger than is taken at once")]
    TooLarge,
    /// A member answered with something that is no answer to the question.
    #[error("etcd at {0} answered with something else than was asked")]
    Nonsense(String),
}

/// What a refusal of one member means for the next try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another member may do better.
    NextMember,
    /// The token is not, or no longer, good.
    NewToken,
    /// It would be repeated.
    Final,
}

impl Verdict {
    pub(crate) fn of(status: &Status) -> Self {
        let message = status.message();
        match status.code() {
            Code::Unauthenticated => Self::NewToken,
            // Roles have changed since the token was made, or there was none because logins were not needed then.
            Code::InvalidArgument if message.contains("revision of auth store") || message.contains("user name") => {
                Self::NewToken
            }
            Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Aborted => {
                Self::NextMember
            }
            // Streams and connections that break are that to the library below.
            Code::Internal => Self::NextMember,
            _ => Self::Final,
        }
    }
}

impl EtcdError {
    /// A refusal that is final.
    pub(crate) fn refused(member: &str, status: &Status) -> Self {
        if status.code() == Code::OutOfRange && status.message().contains("compacted") {
            return Self::Compacted(0);
        }
        if status.code() == Code::OutOfRange && status.message().contains("message length too large") {
            return Self::TooLarge;
        }
        Self::Refused { member: member.to_owned(), reason: said(status) }
    }
}

/// In the words of the other side, or the innermost cause: those around it say "transport error".
pub(crate) fn said(status: &Status) -> String {
    let mut innermost: &dyn Error = status;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let cause = if status.source().is_some() { innermost.to_string() } else { status.message().to_owned() };
    if cause.is_empty() { status.code().to_string() } else { cause }
}
