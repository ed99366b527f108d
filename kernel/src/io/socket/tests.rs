use super::*;
use crate::file::Ready;
use crate::io::poll::tests::Me;

fn send(s: &Arc<Socket>, data: &[u8]) -> Result<usize> {
    s.send(&Me::default(), Send { data, nonblock: true, ..Send::default() })
}
fn recv(s: &Socket, n: usize) -> Result<Vec<u8>> {
    let mut b = vec![0; n];
    let r = s.receive(&Me::default(), &mut b, true, false, false)?;
    b.truncate(r.len);
    Ok(b)
}

#[test]
fn pairs_keep_or_join_messages() {
    let reg = Arc::default();
    for (kind, first) in [(Kind::Stream, &b"abcde"[..]), (Kind::Datagram, b"ab"), (Kind::SeqPacket, b"ab")] {
        let (a, b) = Socket::pair(&reg, kind, Cred::default());
        assert_eq!(send(&a, b"ab"), Ok(2));
        assert_eq!(send(&a, b"cde"), Ok(3));
        assert_eq!(recv(&b, 99), Ok(first.to_vec()));
        assert_eq!(b.poll() & Ready::IN, if kind == Kind::Stream { Ready::empty() } else { Ready::IN });
    }
}

#[test]
fn close_and_shutdown() {
    let reg = Arc::default();
    let (a, b) = Socket::pair(&reg, Kind::Stream, Cred::default());
    send(&a, b"x").unwrap();
    a.shutdown(libc::SHUT_WR).unwrap();
    assert_eq!(send(&a, b"x"), Err(Errno::EPIPE));
    assert_eq!(recv(&b, 9), Ok(b"x".to_vec()));
    assert_eq!(recv(&b, 9), Ok(vec![]));
    assert_eq!(b.poll() - Ready::WRBAND, (Ready::IN | Ready::OUT | Ready::RDHUP).with_norm());
    assert_eq!(send(&b, b"y"), Ok(1));
    a.close();
    assert_eq!(b.poll() - Ready::WRBAND, (Ready::IN | Ready::OUT | Ready::RDHUP | Ready::HUP | Ready::ERR).with_norm());
    assert_eq!(send(&b, b"y"), Err(Errno::ECONNRESET));
    assert_eq!(send(&b, b"y"), Err(Errno::EPIPE));
}

#[test]
fn listen_connect_accept() {
    let reg = Arc::default();
    let me = Me::default();
    let new = |k| Socket::new(&reg, libc::AF_UNIX, k, Cred { pid: 5, uid: 1, gid: 1 });
    let (l, c) = (new(Kind::Stream), new(Kind::Stream));
    let key = Key::Abstract(b"n".to_vec());
    assert_eq!(l.listen(1, Cred::default()), Err(Errno::EINVAL));
    l.bind(key.clone(), Addr::unix(b"\0n")).unwrap();
    assert_eq!(new(Kind::Stream).bind(key.clone(), Addr::default()), Err(Errno::EADDRINUSE));
    let to = reg.get(&key).unwrap();
    assert_eq!(c.connect(&me, &to, &Addr::default(), c.cred, true), Err(Errno::ECONNREFUSED));
    l.listen(0, Cred { pid: 9, uid: 2, gid: 2 }).unwrap();
    assert_eq!(l.accept(&me, true).err(), Some(Errno::EAGAIN));
    c.connect(&me, &to, &Addr::default(), c.cred, true).unwrap();
    assert_eq!(new(Kind::Stream).connect(&me, &to, &Addr::default(), c.cred, true), Err(Errno::EAGAIN));
    assert_eq!(new(Kind::SeqPacket).connect(&me, &to, &Addr::default(), c.cred, true), Err(Errno::EPROTOTYPE));
    send(&c, b"early").unwrap();
    let s = l.accept(&me, true).unwrap();
    assert_eq!(recv(&s, 9), Ok(b"early".to_vec()));
    assert_eq!((s.peer_cred().pid, c.peer_cred().pid), (5, 9));
    assert_eq!(c.remote().unwrap(), Addr::unix(b"\0n"));
    drop(to);
    l.describe(0);
    assert!(reg.get(&key).is_none());
}

#[test]
fn rights_end_a_read() {
    let reg = Arc::default();
    let (a, b) = Socket::pair(&reg, Kind::Stream, Cred::default());
    let me = Me::default();
    let (r, _w) = crate::io::pipe::pipe(0, (0, 0));
    send(&a, b"1").unwrap();
    a.send(&me, Send { data: b"2", rights: vec![r], ..Send::default() }).unwrap();
    send(&a, b"3").unwrap();
    let mut buf = [0; 9];
    let got = b.receive(&me, &mut buf, true, false, false).unwrap();
    assert_eq!((got.len, got.rights.len()), (2, 1));
    assert_eq!(recv(&b, 9), Ok(b"3".to_vec()));
}

#[test]
fn stream_between_threads() {
    let reg = Arc::default();
    let (a, b) = Socket::pair(&reg, Kind::Stream, Cred::default());
    let t = std::thread::spawn(move || {
        let me = Me::default();
        for i in 0..300usize {
            let data = vec![i as u8; i * 97 + 1];
            assert_eq!(a.send(&me, Send { data: &data, ..Send::default() }), Ok(data.len()));
        }
        a.close();
    });
    let (me, mut sum, mut buf) = (Me::default(), 0, vec![0; 10_000]);
    loop {
        match b.receive(&me, &mut buf, false, false, true).unwrap().len {
            0 => break,
            n => sum += n,
        }
    }
    t.join().unwrap();
    assert_eq!(sum, (0..300).map(|i| i * 97 + 1).sum::<usize>());
}
