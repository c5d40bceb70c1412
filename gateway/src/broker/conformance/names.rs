//! Names and payloads that trip up encodings.

use bytes::Bytes;

use super::context::{Context, message, offsets, only_position};
use crate::{
    broker::{From, PublisherInfo, Start, Stored},
    channel::Channel,
};

pub(super) async fn payloads_arrive_byte_by_byte(cx: Context) {
    let channel = cx.channel("keep", "a");
    let listener = cx.listener(1);
    listener.channel(&channel, Start::Live).await;
    let every_byte: Vec<u8> = (0..=255).collect();
    let events: [&[u8]; 8] = [
        b"",
        &every_byte,
        &every_byte.repeat(250),
        b"\r\n+OK\r\n$-1\r\n",
        b"MOVED 1 127.0.0.1:1",
        b"message",
        &[0xff, 0xfe, 0x00],
        "\u{1f980} \u{0}".as_bytes(),
    ];
    for event in events {
        let stored = Stored {
            id: Bytes::copy_from_slice(&every_byte[..16]),
            event: Bytes::copy_from_slice(event),
            exclude_session: "session \u{e9}".into(),
            publisher: Some(PublisherInfo { client_id: "phone {7}".into(), user_id: "u:1".into() }),
            ttl_ms: u64::MAX,
        };
        let publish = crate::broker::Publish { stored: stored.clone(), ..message(&channel, "") };
        cx.node(0).publish(publish).await.unwrap();
        assert_eq!(listener.next().await.stored, stored);
        let replayed = listener.channel(&channel, Start::From(From::Last(1))).await.catchup.unwrap();
        assert_eq!(replayed.channels[0].publications[0].stored, stored);
    }
    assert_eq!(
        cx.node(0)
            .publish(crate::broker::Publish { stored: Stored::default(), ..message(&channel, "") })
            .await
            .map(|answer| answer.duplicate),
        Ok(false)
    );
    assert_eq!(listener.next().await.stored, Stored::default());
}

pub(super) async fn odd_names_are_ordinary(cx: Context) {
    let longest = "x".repeat(255 - cx.name("keep", "").len());
    let odd = [
        "{}",
        "{a}:b",
        "a}b{",
        "{{x}}",
        ":",
        "message",
        "pmessage",
        "MOVED",
        "0",
        "-1",
        "1-1",
        "a/b?c#d",
        "%41",
        "\"quoted\"",
        "\\",
        "[a]",
        "$",
        "+",
        "\u{e9}",
        "e\u{301}",
        "\u{1f980}.\u{4e2d}\u{6587}",
        "A",
        "a",
        &longest,
    ];
    let listener = cx.listener(1);
    for name in odd {
        let channel = cx.channel("keep", name);
        let start = only_position(&listener.channel(&channel, Start::Live).await, &channel);
        assert_eq!(start.offset, 0, "{name}");
        let position = cx.publish(0, &channel, name).await;
        assert_eq!(position.offset, 1, "{name}");
        let publication = listener.next().await;
        assert_eq!((&publication.channel, publication.position), (&channel, Some(position)));
        assert_eq!(offsets(&cx.all(&channel).await.publications), [1], "{name}");
    }
    let by_pattern = cx.listener(0).pattern(&cx.pattern("keep", "**"), Start::Live).await;
    assert_eq!(by_pattern.positions.len(), odd.len());
    // Names without anything of the case in them; other runs may have published there before.
    for name in ["message", "smessage", "{}", "\u{1f980}"] {
        let channel = Channel::parse(name).unwrap();
        listener.channel(&channel, Start::Live).await;
        let position = cx.publish(0, &channel, "x").await;
        assert_eq!(listener.next_position().await, position);
    }
}

pub(super) async fn names_that_contain_each_other_are_separate(cx: Context) {
    let channels = ["a", "a.b", "a.b.c", "a:b", "A"].map(|name| cx.channel("keep", name));
    let listeners = [cx.listener(1), cx.listener(1), cx.listener(1), cx.listener(1), cx.listener(1)];
    for (channel, listener) in channels.iter().zip(&listeners) {
        listener.channel(channel, Start::Live).await;
    }
    for _ in 0..2 {
        for channel in &channels {
            cx.publish(0, channel, "x").await;
        }
    }
    for (channel, listener) in channels.iter().zip(&listeners) {
        for offset in 1..=2 {
            let publication = listener.next().await;
            assert_eq!((&publication.channel, publication.position.unwrap().offset), (channel, offset));
        }
        assert!(listener.recorder.drain().is_empty());
    }
}
