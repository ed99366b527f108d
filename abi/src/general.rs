// Made by generate.sh.
constants! {
    CLOCAL: u32 = 2048;
    CREAD: u32 = 128;
    CS8: u32 = 48;
    CSIZE: u32 = 48;
    ECHO: u32 = 8;
    ECHOCTL: u32 = 512;
    ECHOE: u32 = 16;
    ECHONL: u32 = 64;
    ICANON: u32 = 2;
    ICRNL: u32 = 256;
    IEXTEN: u32 = 32768;
    IGNCR: u32 = 128;
    INLCR: u32 = 64;
    ISIG: u32 = 1;
    ISTRIP: u32 = 32;
    IUTF8: u32 = 16384;
    IXON: u32 = 1024;
    NOFLSH: u32 = 128;
    OCRNL: u32 = 8;
    ONLCR: u32 = 4;
    OPOST: u32 = 1;
    PARENB: u32 = 256;
}
