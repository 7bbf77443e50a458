//! Values that others wait for: they are woken by another value, not by the same one again.

use tokio::sync::watch;

/// Puts the value of now; whether it is another one than before.
pub(crate) fn tell<T: PartialEq>(those_who_wait: &watch::Sender<T>, value: T) -> bool {
    those_who_wait.send_if_modified(|before| {
        let is_news = *before != value;
        if is_news {
            *before = value;
        }
        is_news
    })
}
