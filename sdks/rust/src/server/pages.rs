//! Lists that come in pages.

use std::{collections::VecDeque, future::Future};

use futures_util::{Stream, stream::try_unfold};

use crate::error::Error;

/// A page of a list. It may be empty and not the last.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What is on it.
    pub items: Vec<T>,
    /// The next page's token; `None`: this was the last one.
    pub next: Option<String>,
}

impl<T> Page<T> {
    pub(super) fn new(items: Vec<T>, next: String) -> Self {
        Self { items, next: (!next.is_empty()).then_some(next) }
    }
}

/// Everything on the page that `first` is the token of and those after it, asked for as it is taken. It ends with the first
/// error.
pub(super) fn all<T, F>(first: String, page: impl Fn(String) -> F) -> impl Stream<Item = Result<T, Error>>
where
    F: Future<Output = Result<Page<T>, Error>>,
{
    try_unfold((VecDeque::new(), Some(first), page), |(mut items, mut next, page)| async move {
        loop {
            if let Some(item) = items.pop_front() {
                return Ok(Some((item, (items, next, page))));
            }
            let Some(token) = next else { return Ok(None) };
            let got = page(token).await?;
            (items, next) = (got.items.into(), got.next);
        }
    })
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, TryStreamExt as _};

    use super::*;

    #[tokio::test]
    async fn empty_pages_do_not_end_the_list_and_an_error_does() {
        let page = |token: String| async move {
            match token.as_str() {
                "" => Ok(Page::new(vec![1, 2], "b".into())),
                "b" => Ok(Page::new(vec![], "c".into())),
                "c" => Ok(Page::new(vec![3], String::new())),
                _ => Err(Error::ClientClosed),
            }
        };
        let listed: Vec<i32> = all(String::new(), page).try_collect().await.unwrap();
        assert_eq!(listed, [1, 2, 3]);
        let rest: Vec<_> = all("x".into(), page).collect().await;
        assert_eq!(rest, [Err(Error::ClientClosed)]);
    }
}
