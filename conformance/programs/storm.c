// cc storm: -O2 -D_GNU_SOURCE -pthread
// cc32 storm: -O2 -D_GNU_SOURCE -pthread
// A thread runs all kinds of loops while another sends it signals as fast as it can and a third makes code: it is asked to leave its code all the time, at
// whatever instruction, and computes the same.
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/mman.h>
#include <string.h>
static volatile int n, stop; static pthread_t a;
static void h(int s){ n++; }
static void *sender(void*p){ while(!stop) { pthread_kill(a, SIGUSR1); for(volatile int i=0;i<200;i++); } return 0; }
static void *jit(void*p){ unsigned char *c=mmap(0,4096,7,MAP_PRIVATE|MAP_ANONYMOUS,-1,0); unsigned s=0; for(unsigned i=0;!stop;i++){ memcpy(c,"\xb8\0\0\0\0\xc3",6); memcpy(c+1,&i,4); s+=((unsigned(*)(void))c)(); if(((unsigned(*)(void))c)()!=i) abort(); } return 0; }
static long fib(long n){ return n<2?n:fib(n-1)+fib(n-2); }
static int cmp(const void*x,const void*y){ return *(int*)x-*(int*)y; }
int main(){ a=pthread_self(); struct sigaction sa={0}; sa.sa_handler=h; sa.sa_flags=SA_RESTART; sigaction(SIGUSR1,&sa,0);
 pthread_t t,j; pthread_create(&t,0,sender,0); pthread_create(&j,0,jit,0);
 static char b1[1<<16],b2[1<<16]; long f=0; unsigned long h1=0; static int v[5000]; long double x=1; double y=1;
 for(int r=0;r<60;r++){ f+=fib(20); for(int i=0;i<1<<16;i++) b1[i]=i*r; memcpy(b2,b1,sizeof b1); asm volatile("rep movsb"::"S"(b2),"D"(b1),"c"(sizeof b1):"memory");
  for(int i=0;i<1<<16;i++) h1=h1*31+b2[i]; for(int i=0;i<5000;i++) v[i]=(i*7919+r)%10007; qsort(v,5000,sizeof(int),cmp); for(int i=0;i<5000;i++) h1=h1*31+v[i];
  for(int i=0;i<20000;i++){ x=x*1.0001L+0.5L/(x+1); y=y*1.0001+0.5/(y+1);} for(long i=0;i<200000;i++) asm volatile("":"+r"(f)); }
 stop=1; pthread_join(t,0); pthread_join(j,0); printf("%ld %lx %.15Lg %.15g\n",f,h1,x,y); return 0; }
