//! What discovery wants looked up, as tasks: data flows on while names are asked for.

use castgate_endpoint::amt::discovery::{Answer, Question, QuestionId, Service};
use castgate_wire::membership::Family;
use tokio::task::JoinSet;

use crate::dns::{Dns, DnsError};
use crate::locate::Locator;

/// Questions that are being asked. Dropping it drops them.
#[derive(Debug)]
pub struct Lookups {
    dns: Dns,
    locator: Option<Locator>,
    /// As many as discovery has open, and its own bounds are those of names and of time.
    tasks: JoinSet<Answered>,
}

/// What came of a question.
#[derive(Debug)]
pub struct Answered {
    /// Which question it was.
    pub id: QuestionId,
    /// What discovery is told.
    pub answer: Answer,
    /// Why it leads nowhere, for whoever has to be told.
    pub trouble: Option<String>,
}

impl Lookups {
    /// Asks these name servers, and this locator for AMT relays, whatever it was made for.
    #[must_use]
    pub fn new(dns: Dns, locator: Option<Locator>) -> Self {
        Self { dns, locator: locator.map(Locator::for_relays), tasks: JoinSet::new() }
    }

    /// Starts to ask. Takes a Tokio runtime.
    pub fn ask(&mut self, id: QuestionId, question: Question) {
        let (dns, locator) = (self.dns.clone(), self.locator.clone());
        self.tasks.spawn(async move {
            match look_up(&dns, locator.as_ref(), &question).await {
                Ok(answer) => {
                    let trouble = is_empty(&answer).then(|| nothing(&question));
                    Answered { id, answer, trouble }
                }
                Err(trouble) => Answered { id, answer: Answer::Failed, trouble: Some(trouble) },
            }
        });
    }

    /// Waits for the next answer, for ever if nothing is asked. Cancelling loses nothing.
    pub async fn answer(&mut self) -> Answered {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(answered)) => return answered,
                // Lookups neither panic nor are cancelled; if one were, discovery gives it up in time.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn look_up(dns: &Dns, locator: Option<&Locator>, question: &Question) -> Result<Answer, String> {
    let words = |error: DnsError| error.to_string();
    Ok(match question {
        Question::AmtRelay { name } => Answer::Rdata(dns.amt_relays(name).await.map_err(words)?),
        Question::Instances { name } => Answer::Names(dns.names(name).await.map_err(words)?),
        Question::Services { name } => {
            let services = dns.instance(name).await.map_err(words)?;
            let service = |service: castgate_endpoint::hierarchy::locator::ServiceTarget| Service {
                priority: service.priority,
                weight: service.weight,
                port: service.port,
                target: service.target,
            };
            Answer::Services(services.into_iter().map(service).collect())
        }
        Question::Addresses { name, family } => {
            Answer::Addresses(dns.addresses_of(name, *family).await.map_err(words)?)
        }
        Question::Hierarchy { .. } => match locator {
            Some(locator) => Answer::Relays(locator.relays().await.map_err(|error| error.to_string())?),
            None => Answer::Failed,
        },
    })
}

fn is_empty(answer: &Answer) -> bool {
    match answer {
        Answer::Rdata(list) => list.is_empty(),
        Answer::Names(list) => list.is_empty(),
        Answer::Services(list) => list.is_empty(),
        Answer::Addresses(list) => list.is_empty(),
        Answer::Relays(list) => list.is_empty(),
        Answer::Failed => true,
    }
}

/// What is told of a question while it has no answer, as a part of a sentence.
pub(super) fn unanswered(question: &Question) -> String {
    match question {
        Question::AmtRelay { name } => {
            format!("no name server has told the AMTRELAY records of {}", name.trim_end_matches('.'))
        }
        Question::Instances { name } | Question::Services { name } | Question::Addresses { name, .. } => {
            format!("no name server has told where {name} is")
        }
        Question::Hierarchy { .. } => "no tunnel database has answered".to_owned(),
    }
}

/// What is missing, as a part of a sentence.
fn nothing(question: &Question) -> String {
    match question {
        Question::AmtRelay { name } => format!("{} has no AMTRELAY record", name.trim_end_matches('.')),
        Question::Instances { name } | Question::Services { name } => format!("{name} has no service"),
        Question::Addresses { name, family: Family::V4 } => format!("{name} has no IPv4 address"),
        Question::Addresses { name, family: Family::V6 } => format!("{name} has no IPv6 address"),
        Question::Hierarchy { .. } => "the tunnel databases name no relay".to_owned(),
    }
}
