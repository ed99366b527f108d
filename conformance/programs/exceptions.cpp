// cc: -O2 -pthread
// C++: exceptions through frames with destructors, threads with exceptions, RTTI, containers, streams, regex, random.
#include <algorithm>
#include <exception>
#include <future>
#include <iomanip>
#include <iostream>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>
struct Trace { std::string n; explicit Trace(std::string s) : n(std::move(s)) {} ~Trace() { std::cout << "~" << n << (std::uncaught_exceptions() ? "!" : "") << "\n"; } };
struct Base { virtual ~Base() = default; virtual int f() const { return 1; } }; struct Derived : Base { int f() const override { return 2; } };
static int depth(int n) { Trace t("d" + std::to_string(n)); if (n == 0) throw std::out_of_range("bottom"); return depth(n - 1) + 1; }
static long fib(int n) { if (n < 0) throw n; return n < 2 ? n : fib(n - 1) + fib(n - 2); }
int main() {
    try { depth(4); } catch (const std::exception &e) { std::cout << "caught " << e.what() << "\n"; }
    try { try { throw 42; } catch (int i) { std::cout << i << "\n"; throw std::runtime_error("again"); } } catch (const std::runtime_error &e) { std::cout << e.what() << "\n"; }
    try { try { throw std::logic_error("inner"); } catch (...) { std::throw_with_nested(std::runtime_error("outer")); } } catch (const std::exception &e) { std::cout << e.what(); try { std::rethrow_if_nested(e); } catch (const std::exception &i) { std::cout << " / " << i.what() << "\n"; } }
    long thrown = 0; for (int i = 0; i < 2000; i++) try { if (i % 3 == 0) fib(-i - 1); } catch (int v) { thrown -= v; } std::cout << thrown << "\n";
    try { std::vector<int>(3).at(5); } catch (const std::out_of_range &) { std::cout << "at\n"; } try { (void)std::stoi("x"); } catch (const std::invalid_argument &) { std::cout << "stoi\n"; } try { new char[~0ul / 4]; } catch (const std::bad_alloc &) { std::cout << "bad_alloc\n"; }
    std::unique_ptr<Base> p = std::make_unique<Derived>(); std::cout << p->f() << (dynamic_cast<Derived *>(p.get()) != nullptr) << "\n"; try { Base b; (void)dynamic_cast<Derived &>(b); } catch (const std::bad_cast &) { std::cout << "bad_cast\n"; }
    auto f = std::async(std::launch::async, [] { Trace t("async"); if (true) throw std::domain_error("from thread"); return 1; }); try { f.get(); } catch (const std::domain_error &e) { std::cout << e.what() << "\n"; }
    std::mutex m; long total = 0; std::vector<std::thread> ts; for (int i = 0; i < 4; i++) ts.emplace_back([&, i] { for (int k = 0; k < 300; k++) try { if (k % 2) throw i * k; } catch (int v) { std::lock_guard<std::mutex> l(m); total += v; } }); for (auto &t : ts) t.join(); std::cout << total << "\n";
    std::mt19937_64 g(42); std::vector<double> v(20000); std::normal_distribution<> d(5, 2); std::generate(v.begin(), v.end(), [&] { return d(g); }); std::sort(v.begin(), v.end()); std::cout << std::setprecision(17) << v[100] << " " << std::accumulate(v.begin(), v.end(), 0.0) / double(v.size()) << "\n";
    std::unordered_map<std::string, int> um; for (int i = 0; i < 5000; i++) um[std::to_string(i * 7919 % 1000)]++; std::map<std::string, int> om(um.begin(), um.end()); std::cout << om.size() << " " << om.begin()->second << "\n"; std::regex re("(\\w+)@(\\w+)\\.org"); std::string s = "a@b.org, cc@dd.org"; for (std::sregex_iterator i(s.begin(), s.end(), re), e; i != e; ++i) std::cout << (*i)[1] << "|" << (*i)[2] << "\n";
    std::ostringstream o; o << std::hex << std::setw(8) << std::setfill('0') << 48879 << std::scientific << 1.5e300 * 2; std::cout << o.str() << "\n"; long double l = 1; for (int i = 1; i < 30; i++) l = l * i / 3.0L; std::cout << std::setprecision(21) << l << "\n"; std::set_terminate([] { std::cout << "terminate" << std::endl; std::_Exit(3); }); throw 1;
}
